-- formula: 1
-- references: ioi_prompts (study, prompt) where task = 'ioi'
-- references: task_prompts (study, task, prompt) where task <> 'ioi'
-- below: layer < n_layers, head < n_heads
CREATE TABLE acc_pairs (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('acc', 'acc++')),
    prompt BIGINT NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    destination INTEGER NOT NULL,
    source INTEGER NOT NULL CHECK (source >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    uncapped_score DOUBLE NOT NULL,
    relative_score DOUBLE NOT NULL,
    attention DOUBLE NOT NULL CHECK (attention BETWEEN 0 AND 1.000001),
    attention_limit DOUBLE NOT NULL CHECK (attention_limit > 0 AND attention_limit <= 1),
    reaches_limit BOOLEAN NOT NULL,
    terms_error DOUBLE NOT NULL CHECK (terms_error >= 0),
    is_root BOOLEAN NOT NULL,
    path_multiplicity DOUBLE NOT NULL CHECK (path_multiplicity >= 0),
    destination_slices INTEGER[],
    destination_attention_left DOUBLE CHECK (destination_attention_left BETWEEN 0 AND 1.000001),
    destination_head_share DOUBLE CHECK (destination_head_share BETWEEN 0 AND 1.000001),
    source_slices INTEGER[],
    source_attention_left DOUBLE CHECK (source_attention_left BETWEEN 0 AND 1.000001),
    source_head_share DOUBLE CHECK (source_head_share BETWEEN 0 AND 1.000001),
    PRIMARY KEY (study, task, trace_rule, prompt, layer, head, destination, source),
    CHECK (source <= destination),
    CHECK (NOT reaches_limit OR source >= 1),
    CHECK (is_root OR path_multiplicity > 0),
    CHECK ((path_multiplicity > 0) = (destination_slices IS NOT NULL)),
    CHECK ((path_multiplicity > 0) = (source_slices IS NOT NULL)),
    CHECK ((destination_attention_left IS NOT NULL) = (path_multiplicity > 0 AND trace_rule = 'acc++')),
    CHECK ((source_attention_left IS NOT NULL) = (path_multiplicity > 0 AND trace_rule = 'acc++'))
);
COMMENT ON TABLE acc_pairs IS 'Pairs of attention traced by ACC and ACC++, the successors of singular vector tracing by the authors of Franco & Crovella 2024 (arXiv 2410.00340). A row of scores is split into terms by writer, token read, singular vector of Omega = W_Q W_K^T (no biases) and source, norms frozen, on either side; raw weights, float64. One row per rule, prompt, head and traced (destination, source) pair, and per pair that a trace begins with whether it is traced or not.';
COMMENT ON COLUMN acc_pairs.study IS 'Study the row belongs to';
COMMENT ON COLUMN acc_pairs.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN acc_pairs.trace_rule IS 'Rule of the trace. acc: relative attention, score minus the mean score of the other sources; acc++: integrated gradients of the softmax, removal of terms until attention falls below tau = min(1, 2.5 / (destination + 1)). FC24''s own rule has its tables trace_*';
COMMENT ON COLUMN acc_pairs.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN acc_pairs.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN acc_pairs.head IS 'Head within the layer, from 0';
COMMENT ON COLUMN acc_pairs.destination IS 'Position that attends (query), BOS at 0';
COMMENT ON COLUMN acc_pairs.source IS 'Position attended to (key), BOS at 0';
COMMENT ON COLUMN acc_pairs.destination_role IS 'Role of the destination in the prompt, as in attention_slices';
COMMENT ON COLUMN acc_pairs.source_role IS 'Role of the source in the prompt, as in attention_slices';
COMMENT ON COLUMN acc_pairs.uncapped_score IS 'Score of the pair as the terms sum to it: what the softmax is taken of, before tanh caps it where the model has a cap';
COMMENT ON COLUMN acc_pairs.relative_score IS 'uncapped_score minus the mean over the other sources that the head sees';
COMMENT ON COLUMN acc_pairs.attention IS 'Attention weight after softmax, 0 to 1';
COMMENT ON COLUMN acc_pairs.attention_limit IS 'Least attention of a pair that is traced: the firing threshold (acc), tau(destination) (acc++)';
COMMENT ON COLUMN acc_pairs.reaches_limit IS 'attention >= attention_limit and source >= 1, whatever the sign of the score; only such pairs are traced';
COMMENT ON COLUMN acc_pairs.terms_error IS 'Largest difference between the sums of the terms of a side and the row of scores, relative to its largest score; rounding only';
COMMENT ON COLUMN acc_pairs.is_root IS 'Whether the pair is one that the trace begins with (ioi.tracer_seeds)';
COMMENT ON COLUMN acc_pairs.path_multiplicity IS 'Paths from root pairs to this pair along kept heads (1 for a root alone, 0 for one that is not traced), exact up to 2^53';
COMMENT ON COLUMN acc_pairs.destination_slices IS 'Singular vectors of the destination side. acc: S, the smallest set, largest share of relative_score first, that reaches it; acc++: those of removed terms. NULL when not traced';
COMMENT ON COLUMN acc_pairs.destination_attention_left IS 'Attention once the terms of the destination side are removed until it falls below attention_limit (acc++); NULL for acc and when not traced';
COMMENT ON COLUMN acc_pairs.destination_head_share IS 'Share of upstream heads in what all writers do on the destination side, by absolute effects: 0 to 1; the rest is that of MLPs, embedding, position, biases and offset. NULL when not traced or all effects are 0';
COMMENT ON COLUMN acc_pairs.source_slices IS 'Singular vectors of the source side, as destination_slices';
COMMENT ON COLUMN acc_pairs.source_attention_left IS 'Attention once the terms of the source side are removed, as destination_attention_left';
COMMENT ON COLUMN acc_pairs.source_head_share IS 'Share of upstream heads in what all writers do on the source side, as destination_head_share';
