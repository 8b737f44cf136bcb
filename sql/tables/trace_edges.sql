-- formula: 5
-- references: study, task, prompt, downstream_layer, downstream_head, destination, source -> attention_slices (study, task, prompt, layer, head, destination, source)
-- below: upstream_layer < n_layers, upstream_head < n_heads, downstream_layer < n_layers, downstream_head < n_heads
CREATE TABLE trace_edges (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    prompt BIGINT NOT NULL,
    upstream_kind VARCHAR NOT NULL CHECK (upstream_kind IN ('head', 'mlp', 'embedding', 'position', 'bias')),
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    downstream_layer INTEGER NOT NULL CHECK (downstream_layer >= 0),
    downstream_head INTEGER NOT NULL CHECK (downstream_head >= 0),
    destination INTEGER NOT NULL,
    source INTEGER NOT NULL CHECK (source >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    side VARCHAR NOT NULL CHECK (side IN ('destination', 'source')),
    written_at INTEGER CHECK (written_at >= 0),
    written_role VARCHAR,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    slices INTEGER[] NOT NULL,
    contribution DOUBLE NOT NULL,
    exact_effect DOUBLE NOT NULL,
    contribution_share DOUBLE,
    head_share DOUBLE CHECK (head_share BETWEEN 0 AND 1.000001),
    kept BOOLEAN NOT NULL,
    is_root BOOLEAN NOT NULL,
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity > 0),
    UNIQUE (study, task, prompt, upstream_kind, upstream_layer, upstream_head, downstream_layer, downstream_head, destination, source, side, written_at),
    CHECK (source <= destination),
    CHECK (written_at <= destination),
    CHECK (trace_rule <> 'fc24' OR written_at = CASE side WHEN 'destination' THEN destination ELSE source END),
    CHECK ((written_at IS NULL) = (written_role IS NULL)),
    CHECK (written_at IS NOT NULL OR upstream_kind <> 'head'),
    CHECK (upstream_layer < downstream_layer),
    CHECK ((upstream_layer IS NULL) = (upstream_kind IN ('embedding', 'position'))),
    CHECK ((upstream_head IS NOT NULL) = (upstream_kind = 'head')),
    CHECK (NOT kept OR upstream_kind = 'head')
);
COMMENT ON TABLE trace_edges IS 'Singular vector tracing (Franco & Crovella 2024, arXiv 2410.00340, sections 4 and 5): what upstream writers contribute to the selected slices of a traced downstream pair. One row per prompt, upstream writer, downstream head, (destination, source) pair, side and, under the rule relative, token written at. All kept heads and all writers that are not heads; other heads only as sums in attention_slices unless the study keeps all. Processed weights.';
COMMENT ON COLUMN trace_edges.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_edges.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_edges.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN trace_edges.upstream_kind IS 'Writer of the residual stream: head (z W_O without bias), mlp, embedding, position or bias (attention output bias of a layer, value bias folded in)';
COMMENT ON COLUMN trace_edges.upstream_layer IS 'Layer of the writer; NULL for embedding and position';
COMMENT ON COLUMN trace_edges.upstream_head IS 'Head of the writer; NULL for all but heads';
COMMENT ON COLUMN trace_edges.downstream_layer IS 'Layer of the head that reads';
COMMENT ON COLUMN trace_edges.downstream_head IS 'Head that reads';
COMMENT ON COLUMN trace_edges.destination IS 'Destination position of the downstream pair';
COMMENT ON COLUMN trace_edges.source IS 'Source position of the downstream pair';
COMMENT ON COLUMN trace_edges.destination_role IS 'Role of the destination, as in attention_slices';
COMMENT ON COLUMN trace_edges.source_role IS 'Role of the source, as in attention_slices';
COMMENT ON COLUMN trace_edges.side IS 'Where the writer wrote what the downstream head reads: destination (its query) or source (its key)';
COMMENT ON COLUMN trace_edges.written_at IS 'Position at which the writer wrote. The destination or the source of the pair; under the rule relative, on the source side, another source too, which counts with -1 / (number of others): a head is followed from there. NULL: writers that are not heads, all other sources together';
COMMENT ON COLUMN trace_edges.written_role IS 'Role of written_at';
COMMENT ON COLUMN trace_edges.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN trace_edges.slices IS 'Selected singular vector indices S of the downstream pair';
COMMENT ON COLUMN trace_edges.contribution IS 'sum over k in S of e_k sqrt(sigma_k) u_k . o_i / s_i on the destination side, v_k . o_j / s_j on the source side, e_k = sign(u_k . x_i) (eq. 8; no 1 is appended to o); under the rule relative times -1 / (number of others) for what was written at another source';
COMMENT ON COLUMN trace_edges.exact_effect IS 'Exact part of q . k on S that the writer carries: sum over k in S of sigma_k (u_k . o_i / s_i)(v_k . x_j) on the destination side, sigma_k (u_k . x_i)(v_k . o_j / s_j) on the source side; all writers plus the appended 1 sum to slice_sum, under the rule relative to its difference from the mean of the other sources';
COMMENT ON COLUMN trace_edges.contribution_share IS 'contribution / sum of contributions of all upstream heads on this side; NULL for writers that are not heads and where that sum is not positive. Above 1 where other heads contribute negatively';
COMMENT ON COLUMN trace_edges.head_share IS 'Share of all upstream heads in the absolute contributions of all writers on this side, as in attention_slices';
COMMENT ON COLUMN trace_edges.kept IS 'Whether the head belongs to the smallest set, largest contribution first, that exceeds 70% of the sum over all upstream heads; none where that sum is not positive';
COMMENT ON COLUMN trace_edges.is_root IS 'Whether the downstream pair is a root pair';
COMMENT ON COLUMN trace_edges.path_multiplicity IS 'Paths from root pairs to the downstream pair, hence paths that use this edge, exact up to 2^53';
