-- formula: 3
CREATE TABLE ioi_trace_variants (
    study VARCHAR,
    task VARCHAR,
    trace_rule VARCHAR,
    upstream_layer INTEGER,
    upstream_head INTEGER,
    downstream_layer INTEGER,
    downstream_head INTEGER,
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR,
    n_prompts BIGINT,
    n_pairs BIGINT,
    path_multiplicity DOUBLE,
    mean_contribution DOUBLE
);
COMMENT ON TABLE ioi_trace_variants IS 'Edges of the circuit that singular vector tracing finds (Franco & Crovella 2024, arXiv 2410.00340, section 5), under several rules, aggregated over prompts: kept head-to-head edges. The rule `standard` has the rows of ioi_trace_graph. One row per rule, upstream head, downstream head, roles of the downstream pair and side.';
COMMENT ON COLUMN ioi_trace_variants.study IS 'Study the row belongs to';
COMMENT ON COLUMN ioi_trace_variants.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN ioi_trace_variants.trace_rule IS 'Rule of the trace. standard: heads that contribute to S (FC24 eq. 8), from firing root pairs; near: from root pairs whose attention lies between ioi.near_threshold and the firing threshold; negative: heads that contribute against S; all_slices: every slice in place of S; fc24_code: the published code''s, with a 1 appended to every head''s output and the two sides merged';
COMMENT ON COLUMN ioi_trace_variants.upstream_layer IS 'Layer of the head that writes';
COMMENT ON COLUMN ioi_trace_variants.upstream_head IS 'Head that writes';
COMMENT ON COLUMN ioi_trace_variants.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN ioi_trace_variants.downstream_head IS 'Head that reads';
COMMENT ON COLUMN ioi_trace_variants.destination_role IS 'Role of the downstream pair''s destination';
COMMENT ON COLUMN ioi_trace_variants.source_role IS 'Role of the downstream pair''s source';
COMMENT ON COLUMN ioi_trace_variants.side IS 'Where the upstream head wrote: destination or source of the downstream pair; NULL under the rule fc24_code, which merges them';
COMMENT ON COLUMN ioi_trace_variants.n_prompts IS 'Number of distinct prompts with this edge';
COMMENT ON COLUMN ioi_trace_variants.n_pairs IS 'Number of distinct (prompt, destination, source) with this edge';
COMMENT ON COLUMN ioi_trace_variants.path_multiplicity IS 'Paths from root pairs through this edge, both sides counted where they are merged: what the published code counts';
COMMENT ON COLUMN ioi_trace_variants.mean_contribution IS 'Mean contribution of the upstream head (FC24 eq. 8; under fc24_code with the constant of the appended 1)';
