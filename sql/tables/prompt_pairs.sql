-- formula: 1
-- below: layer < n_layers, head < n_heads
CREATE TABLE prompt_pairs (
    study VARCHAR,
    prompt_set VARCHAR,
    prompt_number INTEGER CHECK (prompt_number >= 0),
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination INTEGER CHECK (destination >= 0),
    source INTEGER CHECK (source >= 0),
    attention DOUBLE NOT NULL CHECK (attention BETWEEN 0 AND 1 + 1e-6),
    uncapped_score DOUBLE NOT NULL,
    slices INTEGER[] NOT NULL,
    n_slices INTEGER NOT NULL CHECK (n_slices >= 0),
    slice_sum DOUBLE NOT NULL,
    PRIMARY KEY (study, prompt_set, prompt_number, layer, head, destination, source),
    CHECK (source <= destination),
    CHECK (n_slices = len(slices))
);
COMMENT ON TABLE prompt_pairs IS 'One row per chosen head and prompt of the study''s own: the source that it attends to most from the last position, and the singular vectors of Omega = W_Q W_K^T (raw weights with the norms'' gains folded in, as ACC has them) that carry the score. Heads: the prompts.pairs with the largest absolute direct_logit_effect in prompt_head_effects.';
COMMENT ON COLUMN prompt_pairs.study IS 'Study the row belongs to';
COMMENT ON COLUMN prompt_pairs.prompt_set IS 'Name of the set that the prompt is in (section prompts of the study, or a file that it names; kept: kept in the explorer)';
COMMENT ON COLUMN prompt_pairs.prompt_number IS 'Number of the prompt in its set, from 0';
COMMENT ON COLUMN prompt_pairs.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prompt_pairs.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prompt_pairs.destination IS 'Position that attends, from 0: the last of the prompt';
COMMENT ON COLUMN prompt_pairs.source IS 'Position attended to, from 0: the one with the largest attention';
COMMENT ON COLUMN prompt_pairs.attention IS 'Attention probability A[destination, source], 0 to 1';
COMMENT ON COLUMN prompt_pairs.uncapped_score IS 'Score of the pair as the terms sum to it: what the softmax is taken of, before tanh caps it where the model has a cap';
COMMENT ON COLUMN prompt_pairs.slices IS 'Selected set S of singular vector indices k: what is left after dropping terms in ascending order while their running sum stays <= 0; mirrored for a negative sum';
COMMENT ON COLUMN prompt_pairs.n_slices IS 'Number of selected slices, 0 to d_head';
COMMENT ON COLUMN prompt_pairs.slice_sum IS 'Sum of the terms in S: of the sign of uncapped_score and at least as large';
