CREATE VIEW head_score_matrix AS
SELECT
    study,
    layer,
    head,
    any_value(value) FILTER (WHERE score = 'previous_token') AS previous_token,
    any_value(value) FILTER (WHERE score = 'duplicate_token') AS duplicate_token,
    any_value(value) FILTER (WHERE score = 'induction') AS induction,
    any_value(value) FILTER (WHERE score = 'induction_dla') AS induction_dla,
    any_value(value) FILTER (WHERE score = 'copying') AS copying,
    any_value(value) FILTER (WHERE score = 'attention_sink') AS attention_sink,
    any_value(value) FILTER (WHERE score = 'positional') AS positional_r2,
    list(score ORDER BY score) FILTER (
        WHERE value > threshold AND value > null_mean + 3 * null_sd
    ) AS roles
FROM head_scores
GROUP BY study, layer, head;
COMMENT ON VIEW head_score_matrix IS 'One row per head with a column per score of head_scores, for sorting and plotting heads.';
COMMENT ON COLUMN head_score_matrix.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_score_matrix.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_score_matrix.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_score_matrix.previous_token IS 'Mean attention to the previous token';
COMMENT ON COLUMN head_score_matrix.duplicate_token IS 'Mean attention to the earlier same token, on repeated random tokens';
COMMENT ON COLUMN head_score_matrix.induction IS 'Mean attention to the token after the earlier same token, on repeated random tokens';
COMMENT ON COLUMN head_score_matrix.induction_dla IS 'Direct effect on the next token''s logit in the second half of repeated random tokens, in logits';
COMMENT ON COLUMN head_score_matrix.copying IS 'Re sum(lambda) / sum |lambda| of the full OV circuit, -1 to 1';
COMMENT ON COLUMN head_score_matrix.attention_sink IS 'Mean attention to position 0';
COMMENT ON COLUMN head_score_matrix.positional_r2 IS 'R^2 of the attention probabilities explained by offset alone';
COMMENT ON COLUMN head_score_matrix.roles IS 'Roles of the head, as in head_roles; NULL where it has none';
