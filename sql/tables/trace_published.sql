-- formula: 1
-- below: upstream_layer < n_layers, upstream_head < n_heads, downstream_layer < n_layers, downstream_head < n_heads
CREATE TABLE trace_published (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule = 'fc24_code'),
    edge_kind VARCHAR NOT NULL CHECK (edge_kind IN ('communication', 'attention')),
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    downstream_layer INTEGER NOT NULL CHECK (downstream_layer >= 0),
    downstream_head INTEGER NOT NULL CHECK (downstream_head >= 0),
    written_role VARCHAR NOT NULL,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    published_count DOUBLE NOT NULL CHECK (published_count > 0),
    UNIQUE (study, task, upstream_layer, upstream_head, downstream_layer, downstream_head, written_role),
    CHECK (upstream_layer < downstream_layer),
    CHECK ((upstream_layer IS NULL) = (edge_kind = 'attention')),
    CHECK ((upstream_head IS NULL) = (edge_kind = 'attention')),
    CHECK (n_prompts <= published_count OR edge_kind = 'attention'),
    CHECK (published_count <= path_multiplicity)
);
COMMENT ON TABLE trace_published IS 'The graph that the published code of Franco & Crovella 2024 (arXiv 2410.00340) builds: nodes are heads, and heads with the role of the token written for them (written role); both sides and all pairs of a downstream head are one edge. 173 nodes (94 and 79) and 612 edges (533 and 79) on their 256 prompts. Empty unless ioi.trace_variants has fc24_code. One row per edge; this project''s graph is trace_graph.';
COMMENT ON COLUMN trace_published.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_published.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_published.trace_rule IS 'Rule of the trace: fc24_code, as in trace_variants';
COMMENT ON COLUMN trace_published.edge_kind IS 'communication: from the upstream head to (downstream head, written role); attention: from (downstream head, written role) to that head';
COMMENT ON COLUMN trace_published.upstream_layer IS 'Layer of the head that writes; NULL for attention';
COMMENT ON COLUMN trace_published.upstream_head IS 'Head that writes; NULL for attention';
COMMENT ON COLUMN trace_published.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN trace_published.downstream_head IS 'Head that reads';
COMMENT ON COLUMN trace_published.written_role IS 'Label of the position at which the upstream head wrote, the published code''s: IO, S1, S2, each with -1 and +1 for the tokens beside it, end, end-1, starts, punct, verb; the last of these where a position has several. Unlabelled positions are left out';
COMMENT ON COLUMN trace_published.n_prompts IS 'Number of distinct prompts with this edge';
COMMENT ON COLUMN trace_published.path_multiplicity IS 'Paths from root pairs through this edge, both sides counted; attention: of the edges into the node';
COMMENT ON COLUMN trace_published.published_count IS 'What the published code counts and filters by (170 of 256): 1 in the first prompt that has the edge, paths in every later one; attention: sum over the edges into the node';
