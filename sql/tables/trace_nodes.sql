-- formula: 4
-- below: layer < n_layers, head < n_heads
CREATE TABLE trace_nodes (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'fc24_near', 'fc24_negative', 'fc24_all_slices', 'relative', 'relative_near', 'relative_negative', 'relative_all_slices', 'fc24_code')),
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    mean_attention DOUBLE CHECK (mean_attention BETWEEN 0 AND 1.000001),
    mean_n_slices DOUBLE CHECK (mean_n_slices >= 0),
    mean_destination_head_share DOUBLE CHECK (mean_destination_head_share BETWEEN 0 AND 1.000001),
    mean_source_head_share DOUBLE CHECK (mean_source_head_share BETWEEN 0 AND 1.000001),
    is_root BOOLEAN NOT NULL,
    UNIQUE (study, task, trace_rule, layer, head, destination_role, source_role),
    CHECK (n_prompts <= n_pairs),
    CHECK ((source_role IS NULL) = (mean_attention IS NULL)),
    CHECK ((source_role IS NULL) = (mean_n_slices IS NULL))
);
COMMENT ON TABLE trace_nodes IS 'Nodes of the circuit that singular vector tracing finds (Franco & Crovella 2024, arXiv 2410.00340, section 5), under several rules. One row per rule, head and roles of its traced pairs; heads that were kept as writers but attend nowhere from there have a row with no source.';
COMMENT ON COLUMN trace_nodes.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_nodes.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_nodes.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 and relative: as in trace_edges; with _near: from root pairs whose attention lies between ioi.near_threshold and the firing threshold; _negative: heads that contribute against S; _all_slices: every slice in place of S; fc24_code: the published code''s, which fires as fc24, appends a 1 to every head''s output, keeps the largest head where the heads'' sum is not positive and merges the two sides';
COMMENT ON COLUMN trace_nodes.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN trace_nodes.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN trace_nodes.destination_role IS 'Role of the position at which the head acts: the destination of its pairs';
COMMENT ON COLUMN trace_nodes.source_role IS 'Role of the position attended to; NULL for a head that was kept but has no firing pair there';
COMMENT ON COLUMN trace_nodes.n_prompts IS 'Number of distinct prompts';
COMMENT ON COLUMN trace_nodes.n_pairs IS 'Number of distinct (prompt, destination, source), or (prompt, destination) without a source';
COMMENT ON COLUMN trace_nodes.path_multiplicity IS 'Paths from root pairs to these pairs, summed: what the published code counts as occurrences. Without a source: paths through the edges that it writes';
COMMENT ON COLUMN trace_nodes.mean_attention IS 'Mean attention weight of the pairs, 0 to 1';
COMMENT ON COLUMN trace_nodes.mean_n_slices IS 'Mean number of selected slices |S| of the pairs';
COMMENT ON COLUMN trace_nodes.mean_destination_head_share IS 'Mean over pairs of attention_slices.destination_head_share; NULL without pairs';
COMMENT ON COLUMN trace_nodes.mean_source_head_share IS 'Mean over pairs of attention_slices.source_head_share; NULL without pairs';
COMMENT ON COLUMN trace_nodes.is_root IS 'Whether a root pair is among them';
