CREATE VIEW head_score_matrix AS
WITH roles AS (
    SELECT study, layer, head, list(role ORDER BY role) AS roles
    FROM head_roles
    GROUP BY study, layer, head
)
SELECT
    study,
    layer,
    head,
    any_value(value) FILTER (WHERE score = 'previous_token') AS previous_token,
    any_value(value) FILTER (WHERE score = 'duplicate_token') AS duplicate_token,
    any_value(value) FILTER (WHERE score = 'induction') AS induction,
    any_value(value) FILTER (WHERE score = 'induction_dla') AS induction_dla,
    any_value(value) FILTER (WHERE score = 'copying') AS copying,
    any_value(value) FILTER (WHERE score = 'copying_effective') AS copying_effective,
    any_value(value) FILTER (WHERE score = 'attention_sink') AS attention_sink,
    any_value(value) FILTER (WHERE score = 'positional') AS positional_r2,
    any_value(value) FILTER (WHERE score = 'copy_suppression_ov') AS copy_suppression_ov,
    any_value(value) FILTER (WHERE score = 'copy_suppression_qk') AS copy_suppression_qk,
    any_value(value) FILTER (WHERE score = 'copy_suppression_explained') AS copy_suppression_explained,
    any_value(value) FILTER (WHERE score = 'successor') AS successor,
    any_value(value) FILTER (WHERE score = 'name_copy') AS name_copy,
    any_value(value) FILTER (WHERE score = 'negative_copy') AS negative_copy,
    any_value(value) FILTER (WHERE score = 'ioi_direct_effect') AS ioi_direct_effect,
    any_value(value) FILTER (WHERE score = 'ioi_attention_io') AS ioi_attention_io,
    any_value(value) FILTER (WHERE score = 'ioi_attention_s1') AS ioi_attention_s1,
    any_value(value) FILTER (WHERE score = 'ioi_attention_s2') AS ioi_attention_s2,
    any_value(value) FILTER (WHERE score = 'ioi_backup_effect') AS ioi_backup_effect,
    any_value(value) FILTER (WHERE score = 'ioi_s_inhibition') AS ioi_s_inhibition,
    any_value(roles.roles) AS roles
FROM head_score_tests
LEFT JOIN roles USING (study, layer, head)
GROUP BY study, layer, head;
COMMENT ON VIEW head_score_matrix IS 'One row per head with a column per score of head_scores and ioi_head_scores, for sorting and plotting heads. A score that a head does not have is NULL.';
COMMENT ON COLUMN head_score_matrix.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_score_matrix.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_score_matrix.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_score_matrix.previous_token IS 'Mean attention to the previous token';
COMMENT ON COLUMN head_score_matrix.duplicate_token IS 'Mean attention to the earlier same token, on repeated random tokens';
COMMENT ON COLUMN head_score_matrix.induction IS 'Mean attention to the token after the earlier same token, on repeated random tokens';
COMMENT ON COLUMN head_score_matrix.induction_dla IS 'Direct effect on the next token''s logit in the second half of repeated random tokens, in logits';
COMMENT ON COLUMN head_score_matrix.copying IS 'Re sum(lambda) / sum |lambda| of the full OV circuit, -1 to 1';
COMMENT ON COLUMN head_score_matrix.copying_effective IS 'The same with the embedding after MLP0, which later heads read';
COMMENT ON COLUMN head_score_matrix.attention_sink IS 'Mean attention to position 0';
COMMENT ON COLUMN head_score_matrix.positional_r2 IS 'R^2 of the attention probabilities explained by offset alone';
COMMENT ON COLUMN head_score_matrix.copy_suppression_ov IS 'Share of tokens among the 10 that attending to them lowers most';
COMMENT ON COLUMN head_score_matrix.copy_suppression_qk IS 'Share of tokens whose prediction attends to the token itself most';
COMMENT ON COLUMN head_score_matrix.copy_suppression_explained IS 'Share of the mean-ablation effect that copy suppression accounts for, at most 1';
COMMENT ON COLUMN head_score_matrix.successor IS 'Share of members of ordinal classes of which the successor is raised most';
COMMENT ON COLUMN head_score_matrix.name_copy IS 'Share of names that the head writes into the top 5 tokens';
COMMENT ON COLUMN head_score_matrix.negative_copy IS 'The same for the negated output';
COMMENT ON COLUMN head_score_matrix.ioi_direct_effect IS 'Direct effect at END on logit IO - logit S, in logits';
COMMENT ON COLUMN head_score_matrix.ioi_attention_io IS 'Mean attention END -> IO on IOI prompts';
COMMENT ON COLUMN head_score_matrix.ioi_attention_s1 IS 'Mean attention END -> S1 on IOI prompts';
COMMENT ON COLUMN head_score_matrix.ioi_attention_s2 IS 'Mean attention END -> S2 on IOI prompts';
COMMENT ON COLUMN head_score_matrix.ioi_backup_effect IS 'Direct effect on logit IO - logit S with the name movers knocked out, in logits; NULL without movers';
COMMENT ON COLUMN head_score_matrix.ioi_s_inhibition IS 'Fall of logit IO - logit S when the head''s path into the movers'' queries is patched, in logits; NULL without movers';
COMMENT ON COLUMN head_score_matrix.roles IS 'Roles of the head, as in head_roles; NULL where it has none';
