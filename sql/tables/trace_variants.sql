-- formula: 4
-- below: upstream_layer < n_layers, upstream_head < n_heads, downstream_layer < n_layers, downstream_head < n_heads
CREATE TABLE trace_variants (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'fc24_near', 'fc24_negative', 'fc24_all_slices', 'relative', 'relative_near', 'relative_negative', 'relative_all_slices', 'fc24_code')),
    upstream_layer INTEGER NOT NULL CHECK (upstream_layer >= 0),
    upstream_head INTEGER NOT NULL CHECK (upstream_head >= 0),
    downstream_layer INTEGER NOT NULL,
    downstream_head INTEGER NOT NULL CHECK (downstream_head >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    side VARCHAR CHECK (side IN ('destination', 'source')),
    written_role VARCHAR,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    mean_contribution DOUBLE NOT NULL,
    UNIQUE (study, task, trace_rule, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role, source_role, side, written_role),
    CHECK (upstream_layer < downstream_layer),
    CHECK (n_prompts <= n_pairs),
    CHECK ((side IS NULL) = (trace_rule = 'fc24_code')),
    CHECK ((written_role IS NULL) = (trace_rule = 'fc24_code'))
);
COMMENT ON TABLE trace_variants IS 'Edges of the circuit that singular vector tracing finds (Franco & Crovella 2024, arXiv 2410.00340, section 5), under several rules, aggregated over prompts: kept head-to-head edges. The main rule, fc24 or relative, has the rows of trace_graph. One row per rule, upstream head, downstream head, roles of the downstream pair, side and role of the token written at.';
COMMENT ON COLUMN trace_variants.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_variants.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_variants.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 and relative: as in trace_edges; with _near: from root pairs whose attention lies between ioi.near_threshold and the firing threshold; _negative: heads that contribute against S; _all_slices: every slice in place of S; fc24_code: the published code''s, which fires as fc24, appends a 1 to every head''s output, keeps the largest head where the heads'' sum is not positive and merges the two sides';
COMMENT ON COLUMN trace_variants.upstream_layer IS 'Layer of the head that writes';
COMMENT ON COLUMN trace_variants.upstream_head IS 'Head that writes';
COMMENT ON COLUMN trace_variants.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN trace_variants.downstream_head IS 'Head that reads';
COMMENT ON COLUMN trace_variants.destination_role IS 'Role of the downstream pair''s destination';
COMMENT ON COLUMN trace_variants.source_role IS 'Role of the downstream pair''s source';
COMMENT ON COLUMN trace_variants.side IS 'Where the upstream head wrote: destination or source of the downstream pair; NULL under the rule fc24_code, which merges them';
COMMENT ON COLUMN trace_variants.written_role IS 'Role of the position at which the upstream head wrote; NULL under the rule fc24_code: trace_published has its roles';
COMMENT ON COLUMN trace_variants.n_prompts IS 'Number of distinct prompts with this edge';
COMMENT ON COLUMN trace_variants.n_pairs IS 'Number of distinct (prompt, destination, source) with this edge';
COMMENT ON COLUMN trace_variants.path_multiplicity IS 'Paths from root pairs through this edge, both sides counted where they are merged: what the published code counts';
COMMENT ON COLUMN trace_variants.mean_contribution IS 'Mean contribution of the upstream head (FC24 eq. 8; under fc24_code with the constant of the appended 1)';
