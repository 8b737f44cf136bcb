-- formula: 2
-- rows: one per head for each prefix_length
-- below: layer < n_layers, head < n_heads
CREATE TABLE prefix_induction (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    prefix_length INTEGER CHECK (prefix_length >= 1),
    n BIGINT NOT NULL CHECK (n > 0),
    mean_attention DOUBLE NOT NULL CHECK (mean_attention BETWEEN 0 AND 1.000001),
    attention_sd DOUBLE CHECK (attention_sd >= 0),
    attention_ci_low DOUBLE,
    attention_ci_high DOUBLE,
    attention_gain DOUBLE NOT NULL,
    attention_gain_ci_low DOUBLE,
    attention_gain_ci_high DOUBLE,
    null_mean DOUBLE CHECK (null_mean BETWEEN 0 AND 1.000001),
    null_sd DOUBLE CHECK (null_sd >= 0),
    dla DOUBLE NOT NULL,
    dla_null_mean DOUBLE,
    dla_null_sd DOUBLE CHECK (dla_null_sd >= 0),
    dla_excess DOUBLE,
    dla_excess_ci_low DOUBLE,
    dla_excess_ci_high DOUBLE,
    dataset VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, head, prefix_length),
    CHECK (attention_ci_low <= attention_ci_high),
    CHECK (attention_gain_ci_low <= attention_gain_ci_high),
    CHECK (dla_excess_ci_low <= dla_excess_ci_high),
    CHECK (prefix_length > 1 OR attention_gain = 0),
    CHECK (abs(dla - dla_null_mean - dla_excess) <= 1e-6 * (1 + abs(dla)))
);
COMMENT ON TABLE prefix_induction IS 'One row per attention head and prefix length p: induction score and direct logit attribution on random tokens in which a block of p tokens stands twice (Kissane et al. 2024, section 4.2). Destination d: last token of the second copy; source s: the token after the first copy. d, s and the random tokens are the same for all p, so two lengths differ by the match alone; exactly p tokens match. Processed weights. Classes of heads are the view prefix_induction_heads.';
COMMENT ON COLUMN prefix_induction.study IS 'Study the row belongs to';
COMMENT ON COLUMN prefix_induction.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prefix_induction.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prefix_induction.prefix_length IS 'p, tokens that match, from 1';
COMMENT ON COLUMN prefix_induction.n IS 'Sequences';
COMMENT ON COLUMN prefix_induction.mean_attention IS 'Induction score: mean over sequences of the attention probability A[d, s]';
COMMENT ON COLUMN prefix_induction.attention_sd IS 'Standard deviation of A[d, s] over sequences; NULL for one sequence';
COMMENT ON COLUMN prefix_induction.attention_ci_low IS 'Lower end of the 95% percentile bootstrap interval of attention over sequences';
COMMENT ON COLUMN prefix_induction.attention_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction.attention_gain IS 'attention minus attention at prefix length 1, on the same sequences: what the longer match adds; 0 at prefix length 1';
COMMENT ON COLUMN prefix_induction.attention_gain_ci_low IS 'Lower end of the 95% percentile bootstrap interval of gain over sequences; the pairing makes it narrower than two intervals of attention';
COMMENT ON COLUMN prefix_induction.attention_gain_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction.null_mean IS 'Mean of attention where s is replaced by another source drawn uniformly from 1 .. d, independently for every sequence; exact. BOS is no source';
COMMENT ON COLUMN prefix_induction.null_sd IS 'Standard deviation of attention under the same null, for the same n; exact';
COMMENT ON COLUMN prefix_induction.dla IS 'Direct logit attribution: mean direct effect of the head at d on the logit of the token at s, z_d W_O over the final norm''s scale times the W_U column; without biases; in logits, relative to the mean logit where the model has LayerNorm';
COMMENT ON COLUMN prefix_induction.dla_null_mean IS 'Mean of dla where that token is replaced by another token of the sequence up to d, drawn uniformly from the distinct ones without BOS; exact';
COMMENT ON COLUMN prefix_induction.dla_null_sd IS 'Standard deviation of dla under the same null, for the same n; exact';
COMMENT ON COLUMN prefix_induction.dla_excess IS 'dla - dla_null_mean: what the head adds to the token that is due, beyond the other tokens of the sequence; logits';
COMMENT ON COLUMN prefix_induction.dla_excess_ci_low IS 'Lower end of the 95% percentile bootstrap interval of dla_excess over sequences';
COMMENT ON COLUMN prefix_induction.dla_excess_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction.dataset IS 'What it was computed on: sequences x tokens for each p, and the seed';
