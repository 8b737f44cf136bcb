-- formula: 1
-- references: study, task, trace_rule, prompt, downstream_layer, downstream_head, destination, source -> acc_pairs (study, task, trace_rule, prompt, layer, head, destination, source)
-- below: upstream_layer < n_layers, upstream_head < n_heads, downstream_layer < n_layers, downstream_head < n_heads
CREATE TABLE acc_edges (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('acc', 'acc++')),
    prompt BIGINT NOT NULL,
    upstream_kind VARCHAR NOT NULL CHECK (upstream_kind IN ('head', 'mlp', 'embedding', 'position', 'bias', 'offset')),
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    written_at INTEGER NOT NULL CHECK (written_at >= 0),
    token_read INTEGER CHECK (token_read >= 0),
    written_role VARCHAR NOT NULL,
    read_role VARCHAR,
    downstream_layer INTEGER NOT NULL CHECK (downstream_layer >= 0),
    downstream_head INTEGER NOT NULL CHECK (downstream_head >= 0),
    destination INTEGER NOT NULL,
    source INTEGER NOT NULL CHECK (source >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    side VARCHAR NOT NULL CHECK (side IN ('destination', 'source')),
    edge_weight DOUBLE NOT NULL,
    edge_weight_share DOUBLE,
    upstream_reaches_limit BOOLEAN,
    is_root BOOLEAN NOT NULL,
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    UNIQUE (study, task, trace_rule, prompt, upstream_kind, upstream_layer, upstream_head, written_at, token_read, downstream_layer, downstream_head, destination, source, side),
    CHECK (source <= destination),
    CHECK (written_at <= destination),
    CHECK (side = 'source' OR written_at = destination),
    CHECK (token_read <= written_at),
    CHECK (upstream_layer < downstream_layer),
    CHECK ((upstream_layer IS NULL) = (upstream_kind IN ('embedding', 'position', 'offset'))),
    CHECK ((upstream_head IS NOT NULL) = (upstream_kind = 'head')),
    CHECK ((token_read IS NOT NULL) = (upstream_kind = 'head')),
    CHECK ((read_role IS NOT NULL) = (upstream_kind = 'head')),
    CHECK ((upstream_reaches_limit IS NOT NULL) = (upstream_kind = 'head'))
);
COMMENT ON TABLE acc_edges IS 'What ACC and ACC++ find upstream of a traced pair: the writers that the rule keeps, heads split by the token that they read, MLPs, biases, embedding, position and offset. One row per rule, prompt, writer, position written at, token read, downstream pair and side. A head that reaches its own limit is traced further as the pair (written_at, token_read).';
COMMENT ON COLUMN acc_edges.study IS 'Study the row belongs to';
COMMENT ON COLUMN acc_edges.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN acc_edges.trace_rule IS 'Rule of the trace. acc: relative attention, score minus the mean score of the other sources; acc++: integrated gradients of the softmax, removal of terms until attention falls below tau = min(1, 2.5 / (destination + 1)). FC24''s own rule has its tables trace_*';
COMMENT ON COLUMN acc_edges.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN acc_edges.upstream_kind IS 'Writer of the residual stream: head (what it reads of one token: A v W_O), mlp, embedding, position, bias (attention output bias of a layer, value bias folded in), or offset (the biases of query or key, c = b W^+, as if they were written to the stream)';
COMMENT ON COLUMN acc_edges.upstream_layer IS 'Layer of the writer; NULL for embedding, position and offset';
COMMENT ON COLUMN acc_edges.upstream_head IS 'Head of the writer; NULL for all but heads';
COMMENT ON COLUMN acc_edges.written_at IS 'Position at which the writer wrote. Destination side: the destination. Source side: the source, or another position whose score falls through it';
COMMENT ON COLUMN acc_edges.token_read IS 'Position that the upstream head read; NULL for other writers';
COMMENT ON COLUMN acc_edges.written_role IS 'Role of written_at';
COMMENT ON COLUMN acc_edges.read_role IS 'Role of token_read';
COMMENT ON COLUMN acc_edges.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN acc_edges.downstream_head IS 'Head that reads';
COMMENT ON COLUMN acc_edges.destination IS 'Destination position of the downstream pair';
COMMENT ON COLUMN acc_edges.source IS 'Source position of the downstream pair';
COMMENT ON COLUMN acc_edges.destination_role IS 'Role of the destination, as in attention_slices';
COMMENT ON COLUMN acc_edges.source_role IS 'Role of the source, as in attention_slices';
COMMENT ON COLUMN acc_edges.side IS 'Where the writer wrote what the downstream head reads: its query (destination) or its keys (source)';
COMMENT ON COLUMN acc_edges.edge_weight IS 'Weight of the edge. acc: part of relative_score on S that the writer carries, kept from the largest until they reach ioi.contribution_fraction of their sum; acc++: attention lost as its terms are removed';
COMMENT ON COLUMN acc_edges.edge_weight_share IS 'edge_weight as a share of the whole. acc: of relative_score on S; acc++: of the attention that the removal takes. Above 1 where other writers count against it';
COMMENT ON COLUMN acc_edges.upstream_reaches_limit IS 'Whether the upstream head fires at (written_at, token_read) and is traced further; NULL for other writers';
COMMENT ON COLUMN acc_edges.is_root IS 'Whether the downstream pair is one that the trace begins with';
COMMENT ON COLUMN acc_edges.path_multiplicity IS 'Paths from root pairs to the downstream pair, hence paths that use this edge, exact up to 2^53';
