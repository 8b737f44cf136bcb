-- formula: 2
-- below: layer < n_layers, head < n_heads, carrier_layer < n_layers, carrier_head < n_heads
CREATE TABLE qk_carried_summary (
    study VARCHAR,
    task VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    chosen_by VARCHAR NOT NULL,
    carrier_layer INTEGER CHECK (carrier_layer >= 0),
    carrier_head INTEGER CHECK (carrier_head >= 0),
    name_order VARCHAR CHECK (name_order IN ('ABBA', 'BABA')),
    source_role VARCHAR,
    ordered_by VARCHAR CHECK (ordered_by IN ('mean', 'covariance')),
    n_top_pairs INTEGER CHECK (n_top_pairs > 0),
    n BIGINT NOT NULL CHECK (n > 0),
    n_bases BIGINT NOT NULL CHECK (n_bases BETWEEN 1 AND n),
    n_part_pairs BIGINT NOT NULL CHECK (n_part_pairs > 0),
    mean_score DOUBLE NOT NULL,
    sd_score DOUBLE NOT NULL CHECK (sd_score >= 0),
    mean_attention DOUBLE NOT NULL CHECK (mean_attention BETWEEN -1.000001 AND 1.000001),
    mean_part DOUBLE NOT NULL,
    score_share DOUBLE,
    score_share_ci_low DOUBLE,
    score_share_ci_high DOUBLE,
    variance_explained DOUBLE CHECK (variance_explained <= 1.000001),
    variance_explained_ci_low DOUBLE,
    variance_explained_ci_high DOUBLE,
    r_squared DOUBLE CHECK (r_squared BETWEEN 0 AND 1.000001),
    r_squared_ci_low DOUBLE,
    r_squared_ci_high DOUBLE,
    variance_explained_held_out DOUBLE CHECK (variance_explained_held_out <= 1.000001),
    variance_explained_held_out_ci_low DOUBLE,
    variance_explained_held_out_ci_high DOUBLE,
    identity_error DOUBLE NOT NULL CHECK (identity_error >= 0),
    CHECK (score_share_ci_low <= score_share_ci_high AND r_squared_ci_low <= r_squared_ci_high),
    CHECK (variance_explained_ci_low <= variance_explained_ci_high),
    CHECK (variance_explained_held_out_ci_low <= variance_explained_held_out_ci_high),
    PRIMARY KEY (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role, ordered_by, n_top_pairs)
);
COMMENT ON TABLE qk_carried_summary IS 'How much of a head''s attention score the first pairs of qk_carried_pairs make up (K24 App. K.3, Fig. 18: 8 pairs, 62% of the variance). One row per head, carrier, order of names, source role, order of the pairs and how many pairs (n_top_pairs, k below). S_k is the sum of the first k pairs as they are, with no coefficients fitted; pairs with the part not_carried come behind all that are carried.';
COMMENT ON COLUMN qk_carried_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN qk_carried_summary.task IS 'Task whose prompts were run';
COMMENT ON COLUMN qk_carried_summary.layer IS 'Layer of the head whose score is split, from 0';
COMMENT ON COLUMN qk_carried_summary.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN qk_carried_summary.chosen_by IS 'Why this head and this carrier, as in qk_carried_pairs';
COMMENT ON COLUMN qk_carried_summary.carrier_layer IS 'Layer of the carrier head, from 0';
COMMENT ON COLUMN qk_carried_summary.carrier_head IS 'Carrier head within its layer, from 0: it reads the stream at qk_features.carried_from and writes at the destination';
COMMENT ON COLUMN qk_carried_summary.name_order IS 'ABBA (IO is named first) or BABA, as in ioi_prompts; prompts of one order only';
COMMENT ON COLUMN qk_carried_summary.source_role IS 'Role whose key is read: Name1 or Name2, the first and the second name of the prompt (IO and S1 in ABBA, S1 and IO in BABA prompts); A-B: the score of role A less that of role B, pair by pair';
COMMENT ON COLUMN qk_carried_summary.ordered_by IS 'mean: pairs by |mean contribution|. covariance: by |covariance with the score| over prompts';
COMMENT ON COLUMN qk_carried_summary.n_top_pairs IS 'Number of pairs in S_k';
COMMENT ON COLUMN qk_carried_summary.n IS 'Prompts';
COMMENT ON COLUMN qk_carried_summary.n_bases IS 'Base prompts among them, which the intervals resample: prompts varied from one base are drawn together';
COMMENT ON COLUMN qk_carried_summary.n_part_pairs IS 'All pairs that are there in some prompt';
COMMENT ON COLUMN qk_carried_summary.mean_score IS 'Mean attention score of the model''s run, what the softmax is taken of';
COMMENT ON COLUMN qk_carried_summary.sd_score IS 'Standard deviation of the score over prompts (n - 1)';
COMMENT ON COLUMN qk_carried_summary.mean_attention IS 'Mean attention to the role; for A-B the mean difference';
COMMENT ON COLUMN qk_carried_summary.mean_part IS 'Mean of S_k over prompts';
COMMENT ON COLUMN qk_carried_summary.score_share IS 'mean_part / mean_score; NULL where the mean score is 0';
COMMENT ON COLUMN qk_carried_summary.score_share_ci_low IS 'Lower end of the 95% percentile bootstrap interval of score_share over base prompts; NULL below two base prompts, and where resampled mean scores have both signs';
COMMENT ON COLUMN qk_carried_summary.score_share_ci_high IS 'Upper end of the same interval';
COMMENT ON COLUMN qk_carried_summary.variance_explained IS '1 - var(score - S_k) / var(score) over prompts; below 0 where the other pairs undo what these do; NULL where the score does not vary';
COMMENT ON COLUMN qk_carried_summary.variance_explained_ci_low IS 'Lower end of the 95% percentile bootstrap interval of variance_explained over base prompts, the pairs being chosen on all prompts; NULL below two base prompts, and where nothing varies';
COMMENT ON COLUMN qk_carried_summary.variance_explained_ci_high IS 'Upper end of the same interval';
COMMENT ON COLUMN qk_carried_summary.r_squared IS 'Squared correlation of S_k and the score; NULL where one of them does not vary';
COMMENT ON COLUMN qk_carried_summary.r_squared_ci_low IS 'Lower end of the 95% percentile bootstrap interval of r_squared over base prompts; NULL below two base prompts, and where nothing varies';
COMMENT ON COLUMN qk_carried_summary.r_squared_ci_high IS 'Upper end of the same interval';
COMMENT ON COLUMN qk_carried_summary.variance_explained_held_out IS 'variance_explained on every second base prompt, the pairs being ordered with the other prompts alone: pairs are chosen among many, so that those chosen on the same prompts look better than they are';
COMMENT ON COLUMN qk_carried_summary.variance_explained_held_out_ci_low IS 'Lower end of the 95% percentile bootstrap interval of variance_explained_held_out over every second base prompt; NULL below two base prompts, and where nothing varies';
COMMENT ON COLUMN qk_carried_summary.variance_explained_held_out_ci_high IS 'Upper end of the same interval';
COMMENT ON COLUMN qk_carried_summary.identity_error IS 'Largest |sum of all pairs - score of the model''s run| over prompts: rounding of the forward pass only';
