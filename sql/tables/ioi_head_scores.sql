-- formula: 3
-- below: layer < n_layers, head < n_heads
CREATE TABLE ioi_head_scores (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    score VARCHAR,
    mode VARCHAR,
    reference VARCHAR,
    value DOUBLE NOT NULL,
    n BIGINT NOT NULL CHECK (n >= 0),
    null_mean DOUBLE NOT NULL,
    null_sd DOUBLE NOT NULL CHECK (null_sd >= 0),
    threshold DOUBLE,
    dataset VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, head, score),
    CHECK ((mode IS NULL) = (reference IS NULL))
);
COMMENT ON TABLE ioi_head_scores IS 'One row per attention head and score that needs IOI prompts (Wang et al. 2022, arXiv 2211.00593, section 3), in the form of head_scores. Base prompts, processed weights. Definitions of the scores are the view head_score_definitions; roles that need several of them, such as name_mover, are in the view head_roles.';
COMMENT ON COLUMN ioi_head_scores.study IS 'Study the row belongs to';
COMMENT ON COLUMN ioi_head_scores.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN ioi_head_scores.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN ioi_head_scores.score IS 'Name of the score, defined in head_score_definitions';
COMMENT ON COLUMN ioi_head_scores.mode IS 'Ablation that the score is of. ioi_backup_effect: mean_counterfactual_template, of the movers at END. ioi_s_inhibition: counterfactual_pair, the head''s own output at END. NULL for the other scores, which ablate nothing';
COMMENT ON COLUMN ioi_head_scores.reference IS 'What the replacing activation is taken from. counterfactual_template: the ABC prompts of the same template, at END alone. counterfactual_pair: the ABC prompt with the same pair_id. NULL without an ablation';
COMMENT ON COLUMN ioi_head_scores.value IS 'Value of the score, in the range that head_score_definitions gives';
COMMENT ON COLUMN ioi_head_scores.n IS 'Number of terms behind the value, counted as head_score_definitions says';
COMMENT ON COLUMN ioi_head_scores.null_mean IS 'Mean of the score under its null (head_score_definitions)';
COMMENT ON COLUMN ioi_head_scores.null_sd IS 'Standard deviation of the score under its null, for the same n';
COMMENT ON COLUMN ioi_head_scores.threshold IS 'Value above which the head meets the condition that the score stands for in head_role_conditions; NULL: a score without a role';
COMMENT ON COLUMN ioi_head_scores.dataset IS 'What the score was computed on: sequences x tokens and seed, the weights, the tokens and the null draws, or prompts, names and movers';
