-- formula: 2
CREATE TABLE ioi_head_scores (
    study VARCHAR,
    layer INTEGER,
    head INTEGER,
    score VARCHAR,
    mode VARCHAR,
    reference VARCHAR,
    value DOUBLE,
    n BIGINT,
    null_mean DOUBLE,
    null_sd DOUBLE,
    threshold DOUBLE,
    dataset VARCHAR
);
COMMENT ON TABLE ioi_head_scores IS 'One row per attention head and score that needs IOI prompts (Wang et al. 2022, arXiv 2211.00593, section 3), in the form of head_scores. Base prompts, processed weights. Roles that need several of these scores, such as name_mover, are in the view head_roles.';
COMMENT ON COLUMN ioi_head_scores.study IS 'Study the row belongs to';
COMMENT ON COLUMN ioi_head_scores.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN ioi_head_scores.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN ioi_head_scores.score IS 'Which score. ioi_direct_effect: what the head''s output z W_O at END adds directly to logit IO - logit S, the final norm''s scale being that of the run, mean over prompts. ioi_negative_effect: its negative. ioi_attention_io, ioi_attention_s1, ioi_attention_s2: mean A[END, position of the name]. name_copy: share of names (IO and S1 of every prompt) among the top 5 tokens of ln_f(x W_V W_O) W_U + b_U, x the normalised residual stream after layer 0 at the name, without the constant b_V W_O; heads of layer 0 have no row. negative_copy: the same with -OV. ioi_backup_effect: ioi_direct_effect while the movers are mean-ablated at END (z at its mean over ABC prompts of the same template); the movers themselves have no row. ioi_s_inhibition: fall of logit IO - logit S when the head''s output at END comes from the pair''s ABC prompt on its paths into the movers'' queries at END alone (path patching: all other heads frozen, MLPs at END recomputed, movers and everything after them run freely); only heads in layers before the last mover have a row. Movers are the heads with the role name_mover, or those that the study names (heads.movers). The last two scores are absent where there are no movers, no ABC prompts or no logit difference (mean more than 3 standard errors above 0)';
COMMENT ON COLUMN ioi_head_scores.mode IS 'Ablation that the score is of. ioi_backup_effect: mean_counterfactual_template, of the movers at END. ioi_s_inhibition: counterfactual_pair, the head''s own output at END. NULL for the other scores, which ablate nothing';
COMMENT ON COLUMN ioi_head_scores.reference IS 'What the replacing activation is taken from. counterfactual_template: the ABC prompts of the same template, at END alone. counterfactual_pair: the ABC prompt with the same pair_id. NULL without an ablation';
COMMENT ON COLUMN ioi_head_scores.value IS 'The score: logits for effects, probabilities for attention, shares for copies';
COMMENT ON COLUMN ioi_head_scores.n IS 'Number of prompts; for name_copy and negative_copy names, two per prompt';
COMMENT ON COLUMN ioi_head_scores.null_mean IS 'Mean of the score under its null. Direct effects: two different names of all prompts'' names drawn uniformly for every prompt in the place of IO and S; exact, 0. Attention: another position from 1 .. END drawn uniformly for every prompt; exact. name_copy, negative_copy: another of the prompts'' names in the place of the name; exact. ioi_s_inhibition: the sign of every prompt''s change drawn at random; exact, 0';
COMMENT ON COLUMN ioi_head_scores.null_sd IS 'Standard deviation of the score under the same null, for the same n; exact';
COMMENT ON COLUMN ioi_head_scores.threshold IS 'Value above which the head meets the condition that the score stands for in head_role_conditions; NULL: a score without a role. ioi_backup_effect, ioi_s_inhibition: 2% of the mean logit difference of the untouched model. Attention: .1, this project''s choice';
COMMENT ON COLUMN ioi_head_scores.dataset IS 'Prompts, names and movers the score was computed with';
