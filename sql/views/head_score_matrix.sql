-- Written by mechinterp_assets/app/generated_views.py from the files of mechinterp_assets/heads/scores; do not edit.
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
    any_value(value) FILTER (WHERE score = 'attention_sink') AS attention_sink,
    any_value(value) FILTER (WHERE score = 'copy_suppression_explained') AS copy_suppression_explained,
    any_value(value) FILTER (WHERE score = 'copy_suppression_ov') AS copy_suppression_ov,
    any_value(value) FILTER (WHERE score = 'copy_suppression_qk') AS copy_suppression_qk,
    any_value(value) FILTER (WHERE score = 'copying') AS copying,
    any_value(value) FILTER (WHERE score = 'copying_effective') AS copying_effective,
    any_value(value) FILTER (WHERE score = 'duplicate_token') AS duplicate_token,
    any_value(value) FILTER (WHERE score = 'induction') AS induction,
    any_value(value) FILTER (WHERE score = 'induction_dla') AS induction_dla,
    any_value(value) FILTER (WHERE score = 'ioi_attention_io') AS ioi_attention_io,
    any_value(value) FILTER (WHERE score = 'ioi_attention_s1') AS ioi_attention_s1,
    any_value(value) FILTER (WHERE score = 'ioi_attention_s2') AS ioi_attention_s2,
    any_value(value) FILTER (WHERE score = 'ioi_backup_effect') AS ioi_backup_effect,
    any_value(value) FILTER (WHERE score = 'ioi_direct_effect') AS ioi_direct_effect,
    any_value(value) FILTER (WHERE score = 'ioi_negative_effect') AS ioi_negative_effect,
    any_value(value) FILTER (WHERE score = 'ioi_s_inhibition') AS ioi_s_inhibition,
    any_value(value) FILTER (WHERE score = 'name_copy') AS name_copy,
    any_value(value) FILTER (WHERE score = 'negative_copy') AS negative_copy,
    any_value(value) FILTER (WHERE score = 'positional') AS positional,
    any_value(value) FILTER (WHERE score = 'previous_token') AS previous_token,
    any_value(value) FILTER (WHERE score = 'successor') AS successor,
    any_value(roles.roles) AS roles_of_head
FROM head_score_tests
LEFT JOIN roles USING (study, layer, head)
GROUP BY study, layer, head;
COMMENT ON VIEW head_score_matrix IS 'One row per head with a column per score of head_scores and ioi_head_scores, for sorting and plotting heads. A score that a head does not have is NULL.';
COMMENT ON COLUMN head_score_matrix.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_score_matrix.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_score_matrix.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_score_matrix.attention_sink IS 'Score attention_sink. Mean over t of A[t, 0], position 0 (BOS) included as destination and source';
COMMENT ON COLUMN head_score_matrix.copy_suppression_explained IS 'Score copy_suppression_explained. 1 - KL(CSPA) / KL(mean ablation): how much of the effect of mean-ablating the head is left unchanged by an ablation that keeps only copy suppression (later layers recomputed). Per destination, the ceil(5%) of sources that the logit lens predicts most keep the part of A v W_O that lowers their own token, the rest is at its mean over sequences';
COMMENT ON COLUMN head_score_matrix.copy_suppression_ov IS 'Score copy_suppression_ov. Share of tokens that are among the 10 output tokens most lowered by attending to the token itself: row of W_EE W_V W_O W_U, processed weights';
COMMENT ON COLUMN head_score_matrix.copy_suppression_qk IS 'Score copy_suppression_qk. Share of tokens whose unembedding, as a query, attends to the token itself more than to any other token: row of W_U^T W_Q W_K^T W_EE^T with normalised keys, no positions and no biases (rotary models: offset 0), processed weights';
COMMENT ON COLUMN head_score_matrix.copying IS 'Score copying. Re sum(lambda) / sum |lambda| over the eigenvalues of W_E W_V W_O W_U, processed weights';
COMMENT ON COLUMN head_score_matrix.copying_effective IS 'Score copying_effective. As copying with W_EE in place of W_E, since MLP0 can turn embeddings around before later heads read them';
COMMENT ON COLUMN head_score_matrix.duplicate_token IS 'Score duplicate_token. Mean over the second half of RRT of A[i, earlier position of the same token]';
COMMENT ON COLUMN head_score_matrix.induction IS 'Score induction. Mean over the second half of RRT of A[i, position after the earlier one of the same token]';
COMMENT ON COLUMN head_score_matrix.induction_dla IS 'Score induction_dla. Direct effect of the head on the logit of the next token in the second half of RRT: z W_O over the final norm''s scale, times the W_U column; processed weights';
COMMENT ON COLUMN head_score_matrix.ioi_attention_io IS 'Score ioi_attention_io. Mean A[END, position of IO]';
COMMENT ON COLUMN head_score_matrix.ioi_attention_s1 IS 'Score ioi_attention_s1. Mean A[END, position of S1]';
COMMENT ON COLUMN head_score_matrix.ioi_attention_s2 IS 'Score ioi_attention_s2. Mean A[END, position of S2]';
COMMENT ON COLUMN head_score_matrix.ioi_backup_effect IS 'Score ioi_backup_effect. ioi_direct_effect while the movers are mean-ablated at END (z at its mean over ABC prompts of the same template): what the head''s output z W_O at END adds directly to logit IO - logit S, the final norm''s scale being that of the run, mean over prompts. Movers are the heads with the role name_mover, or those named by the setting movers of heads; they have no row. Absent where there are no movers, no ABC prompts or no logit difference (mean more than 3 standard errors above 0)';
COMMENT ON COLUMN head_score_matrix.ioi_direct_effect IS 'Score ioi_direct_effect. What the head''s output z W_O at END adds directly to logit IO - logit S, the final norm''s scale being that of the run, mean over prompts';
COMMENT ON COLUMN head_score_matrix.ioi_negative_effect IS 'Score ioi_negative_effect. The negative of ioi_direct_effect';
COMMENT ON COLUMN head_score_matrix.ioi_s_inhibition IS 'Score ioi_s_inhibition. Fall of logit IO - logit S when the head''s output at END comes from the pair''s ABC prompt on its paths into the movers'' queries at END alone (path patching: all other heads frozen, MLPs at END recomputed, movers and everything after them run freely); only heads in layers before the last mover have a row. Movers, and absent, as in ioi_backup_effect';
COMMENT ON COLUMN head_score_matrix.name_copy IS 'Score name_copy. Share of names (IO and S1 of every prompt) among the top 5 tokens of ln_f(x W_V W_O) W_U + b_U, x the normalised residual stream after layer 0 at the name, without the constant b_V W_O; heads of layer 0 have no row';
COMMENT ON COLUMN head_score_matrix.negative_copy IS 'Score negative_copy. Share of names (IO and S1 of every prompt) among the top 5 tokens of ln_f(-x W_V W_O) W_U + b_U, x the normalised residual stream after layer 0 at the name, without the constant b_V W_O; heads of layer 0 have no row';
COMMENT ON COLUMN head_score_matrix.positional IS 'Score positional. R^2 of A over all pairs 1 <= j <= i explained by the offset i - j alone';
COMMENT ON COLUMN head_score_matrix.previous_token IS 'Score previous_token. Mean A[i, i-1]';
COMMENT ON COLUMN head_score_matrix.successor IS 'Score successor. Share of members of ordinal classes (numbers, number words, ordinals, days, months, abbreviations of days and months, letters) of which MLP0(LN2(W_E)) W_V W_O W_U raises the successor most among the class; macro-average over classes with at least 4 single tokens. No rows where the tokenizer has no such class';
COMMENT ON COLUMN head_score_matrix.roles_of_head IS 'Roles of the head, as in head_roles; NULL where it has none';
