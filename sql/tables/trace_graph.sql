-- formula: 5
-- below: upstream_layer < n_layers, upstream_head < n_heads, downstream_layer < n_layers, downstream_head < n_heads
CREATE TABLE trace_graph (
    study VARCHAR,
    task VARCHAR,
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    downstream_layer INTEGER,
    downstream_head INTEGER CHECK (downstream_head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR CHECK (side IN ('destination', 'source')),
    written_role VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    mean_contribution DOUBLE NOT NULL,
    mean_contribution_share DOUBLE,
    mean_exact_effect DOUBLE NOT NULL,
    mean_head_share DOUBLE CHECK (mean_head_share BETWEEN 0 AND 1.000001),
    is_root BOOLEAN NOT NULL,
    PRIMARY KEY (study, task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role, source_role, side, written_role),
    CHECK (upstream_layer < downstream_layer),
    CHECK (n_prompts <= n_pairs)
);
COMMENT ON TABLE trace_graph IS 'Circuit graph of singular vector tracing: kept head-to-head edges of trace_edges aggregated over prompts. One row per upstream head, downstream head, roles of the downstream pair, side and role of the token written at. The published code''s graph is in trace_published.';
COMMENT ON COLUMN trace_graph.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_graph.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_graph.upstream_layer IS 'Layer of the head that writes';
COMMENT ON COLUMN trace_graph.upstream_head IS 'Head that writes';
COMMENT ON COLUMN trace_graph.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN trace_graph.downstream_head IS 'Head that reads';
COMMENT ON COLUMN trace_graph.destination_role IS 'Role of the downstream pair''s destination';
COMMENT ON COLUMN trace_graph.source_role IS 'Role of the downstream pair''s source';
COMMENT ON COLUMN trace_graph.side IS 'Where the upstream head wrote: destination or source of the downstream pair';
COMMENT ON COLUMN trace_graph.written_role IS 'Role of the position at which the upstream head wrote, as in trace_edges';
COMMENT ON COLUMN trace_graph.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN trace_graph.n_prompts IS 'Number of distinct prompts with this edge';
COMMENT ON COLUMN trace_graph.n_pairs IS 'Number of distinct (prompt, destination, source) with this edge';
COMMENT ON COLUMN trace_graph.path_multiplicity IS 'Sum over pairs of the paths from roots through this edge: what the published code counts';
COMMENT ON COLUMN trace_graph.mean_contribution IS 'Mean over pairs of trace_edges.contribution';
COMMENT ON COLUMN trace_graph.mean_contribution_share IS 'Mean of trace_edges.contribution_share over the pairs that have one; NULL when none does';
COMMENT ON COLUMN trace_graph.mean_exact_effect IS 'Mean over pairs of trace_edges.exact_effect';
COMMENT ON COLUMN trace_graph.mean_head_share IS 'Mean over pairs of trace_edges.head_share: how much of what the downstream pair reads heads wrote at all';
COMMENT ON COLUMN trace_graph.is_root IS 'Whether the downstream pair is a root pair in any prompt';
