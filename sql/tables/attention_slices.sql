-- formula: 4
-- references: ioi_prompts (study, prompt) where task = 'ioi'
-- references: task_prompts (study, task, prompt) where task <> 'ioi'
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_slices (
    study VARCHAR,
    task VARCHAR,
    prompt BIGINT,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination INTEGER,
    source INTEGER CHECK (source >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    attention_score DOUBLE NOT NULL,
    attention DOUBLE NOT NULL CHECK (attention BETWEEN 0 AND 1.000001),
    fires BOOLEAN NOT NULL,
    slices INTEGER[] NOT NULL,
    n_slices INTEGER NOT NULL,
    slice_sum DOUBLE NOT NULL,
    slice_terms FLOAT[] NOT NULL,
    relative_identity_error DOUBLE NOT NULL CHECK (relative_identity_error >= 0),
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    is_root BOOLEAN NOT NULL,
    path_multiplicity DOUBLE CHECK (path_multiplicity >= 0),
    destination_heads DOUBLE,
    destination_writers DOUBLE,
    destination_whole DOUBLE CHECK (destination_whole >= 0),
    destination_head_share DOUBLE CHECK (destination_head_share BETWEEN 0 AND 1.000001),
    destination_kept INTEGER CHECK (destination_kept >= 0),
    source_heads DOUBLE,
    source_writers DOUBLE,
    source_whole DOUBLE,
    source_head_share DOUBLE CHECK (source_head_share BETWEEN 0 AND 1.000001),
    source_kept INTEGER CHECK (source_kept >= 0),
    PRIMARY KEY (study, task, prompt, layer, head, destination, source),
    CHECK (source <= destination),
    CHECK (n_slices = len(slices)),
    CHECK (n_slices <= len(slice_terms)),
    CHECK (NOT fires OR source >= 1),
    CHECK (NOT fires OR trace_rule <> 'fc24' OR attention_score >= 0)
);
COMMENT ON TABLE attention_slices IS 'Attention from a source to a destination position, decomposed over singular vectors of Omega (Franco & Crovella 2024, arXiv 2410.00340, sections 3 and 4); processed weights, float64 sums; with rotary positions u_k is that of offset 0, and sigma_k v_k what the pair''s offset makes of it. One row per prompt, head and traced (destination, source) pair, and per root pair whether it fires or not. u_k, v_k: singular vectors, x_i, x_j: normalised inputs with a 1 appended, s: scale of the normalisation.';
COMMENT ON COLUMN attention_slices.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_slices.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_slices.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN attention_slices.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_slices.head IS 'Head within the layer, from 0';
COMMENT ON COLUMN attention_slices.destination IS 'Position that attends (query), BOS at 0';
COMMENT ON COLUMN attention_slices.source IS 'Position attended to (key), BOS at 0';
COMMENT ON COLUMN attention_slices.destination_role IS 'Role of the destination in the prompt. ioi: IO, S1, S2, END, S1+1, AND, PUNCT, VERB, PLACE, OBJECT; other tasks: as in task_prompts.roles. BOS, or other where there is none; the first that applies';
COMMENT ON COLUMN attention_slices.source_role IS 'Role of the source in the prompt, as destination_role';
COMMENT ON COLUMN attention_slices.attention_score IS 'Attention score before softmax as the model computes it: q . k / sqrt(d_head)';
COMMENT ON COLUMN attention_slices.attention IS 'Attention weight after softmax, 0 to 1';
COMMENT ON COLUMN attention_slices.fires IS 'attention >= threshold (0.5 unless the study says otherwise) and source >= 1, under the rule fc24 attention_score >= 0 too; only firing pairs are traced';
COMMENT ON COLUMN attention_slices.slices IS 'Selected set S of singular vector indices k: what is left after dropping terms in ascending order while their running sum stays <= 0 (tolerance 1e-12 of the sum of absolute terms): the smallest set, largest terms first, that reaches the sum. Mirrored for a negative sum, empty only for a sum of 0. Under the rule relative chosen from the terms minus their mean over the destination''s other sources';
COMMENT ON COLUMN attention_slices.n_slices IS 'Number of selected slices, 0 to d_head';
COMMENT ON COLUMN attention_slices.slice_sum IS 'Sum of the terms in S; under the rule fc24 it has the sign of q . k and at least its size';
COMMENT ON COLUMN attention_slices.slice_terms IS 'All terms c_k = sigma_k (u_k . x_i)(v_k . x_j), k from 0; they sum to q . k = attention_score * sqrt(d_head)';
COMMENT ON COLUMN attention_slices.relative_identity_error IS '|sum of terms - score of the model * sqrt(d_head)| / sum of |terms|; rounding only, below 1e-4 in single precision';
COMMENT ON COLUMN attention_slices.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN attention_slices.is_root IS 'Whether the pair is a root: (END, source) of a root head, IO in IOI unless the root names another role';
COMMENT ON COLUMN attention_slices.path_multiplicity IS 'Number of paths from root pairs to this pair along kept heads (1 for a root alone, 0 for a root that does not fire), exact up to 2^53; NULL when not traced. Published counts are these, not prompts';
COMMENT ON COLUMN attention_slices.destination_heads IS 'Sum over upstream heads of their contribution at the destination: sum over k in S of e_k sqrt(sigma_k) u_k . o / s, e_k = sign(u_k . x_i), o = z W_O without bias (eq. 8). NULL when not traced';
COMMENT ON COLUMN attention_slices.destination_writers IS 'The same sum over all writers of the residual stream: heads, MLPs, embedding, position, attention output biases';
COMMENT ON COLUMN attention_slices.destination_whole IS 'sum over k in S of sqrt(sigma_k) |u_k . x_i|: destination_writers plus the constant of the appended 1';
COMMENT ON COLUMN attention_slices.destination_head_share IS 'Share of upstream heads in what all writers do on the destination side, by absolute effects (here contributions): 0 to 1; the rest is that of MLPs, embedding, position, biases and the appended 1. NULL when not traced or all are 0';
COMMENT ON COLUMN attention_slices.destination_kept IS 'Number of upstream heads kept at the destination by the 70% rule; 0 where destination_heads is not positive';
COMMENT ON COLUMN attention_slices.source_heads IS 'Sum over upstream heads of their contribution at the source: sum over k in S of e_k sqrt(sigma_k) v_k . o / s (eq. 8); under the rule relative of o / s minus its mean over the destination''s other sources. NULL when not traced';
COMMENT ON COLUMN attention_slices.source_writers IS 'The same sum over all writers of the residual stream';
COMMENT ON COLUMN attention_slices.source_whole IS 'sum over k in S of sqrt(sigma_k) |v_k . x_j|: source_writers plus the constant of the appended 1';
COMMENT ON COLUMN attention_slices.source_head_share IS 'Share of upstream heads in what all writers do on the source side, as destination_head_share; under the rule relative what was written at each source counts by itself';
COMMENT ON COLUMN attention_slices.source_kept IS 'Number of upstream heads kept at the source by the 70% rule, as destination_kept; under the rule relative of heads and positions written at';
