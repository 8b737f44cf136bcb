-- formula: 1
CREATE TABLE head_scores (
    study VARCHAR,
    layer INTEGER,
    head INTEGER,
    score VARCHAR,
    value DOUBLE,
    n BIGINT,
    null_mean DOUBLE,
    null_sd DOUBLE,
    threshold DOUBLE,
    dataset VARCHAR
);
COMMENT ON TABLE head_scores IS 'One row per attention head and score: the raw score, its null distribution and the threshold. Role labels are the view head_roles. A = attention probabilities [destination, source] of the raw weights; RRT = BOS + random distinct tokens, repeated once; BOS (position 0) is left out as destination and as source except in attention_sink.';
COMMENT ON COLUMN head_scores.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_scores.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_scores.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_scores.score IS 'Which score. previous_token: mean A[i, i-1]. duplicate_token: mean over the second half of RRT of A[i, earlier position of the same token]. induction: the same at the position after the earlier one. attention_sink: mean over t of A[t, 0]. positional: R^2 of A over all pairs 1 <= j <= i explained by the offset i - j alone. induction_dla: direct effect of the head on the logit of the next token in the second half of RRT, z W_O over the final norm scale times the W_U column, processed weights. copying: Re sum(lambda) / sum |lambda| over the eigenvalues of W_E W_V W_O W_U, processed weights (Elhage et al. 2021)';
COMMENT ON COLUMN head_scores.value IS 'The score. Attention scores and positional: 0 to 1. copying: -1 (suppresses what it attends to) to 1 (copies it). induction_dla: logits';
COMMENT ON COLUMN head_scores.n IS 'Number of terms behind the value: (sequence, destination) pairs; for positional (sequence, destination, source) triples; for copying eigenvalues, d_head';
COMMENT ON COLUMN head_scores.null_mean IS 'Mean of the score under its null. previous_token, duplicate_token, induction: the target source replaced by another source drawn uniformly from 1 .. i, independently for every (sequence, destination); exact. attention_sink: the source drawn uniformly from 0 .. t, which is exactly the value of uniform attention. positional: offset labels permuted over the pairs; exact. induction_dla: the next token replaced by another token of the sequence; exact. copying: the head''s own W_V turned by a random rotation of d_model, so a head of the same shape and spectrum that reads in random directions; mean over the draws named in dataset';
COMMENT ON COLUMN head_scores.null_sd IS 'Standard deviation of the score under the same null, for the same n; exact, except copying (over the draws)';
COMMENT ON COLUMN head_scores.threshold IS 'Value above which the head has the role named by the score; NULL: a score without a role';
COMMENT ON COLUMN head_scores.dataset IS 'What the score was computed on: sequences x tokens and seed, or the weights and the null draws';
