-- formula: 2
-- below: layer < n_layers, head < n_heads, query_layer < n_layers, key_layer < n_layers
CREATE TABLE qk_feature_pairs (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    chosen_by VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    query_kind VARCHAR NOT NULL,
    query_layer INTEGER CHECK (query_layer >= 0),
    query_feature INTEGER CHECK (query_feature >= 0),
    key_kind VARCHAR NOT NULL,
    key_layer INTEGER CHECK (key_layer >= 0),
    key_feature INTEGER CHECK (key_feature >= 0),
    rank INTEGER CHECK (rank >= 0),
    covariance_rank INTEGER CHECK (covariance_rank >= 0),
    n_part_pairs BIGINT NOT NULL CHECK (n_part_pairs > 0),
    n BIGINT NOT NULL CHECK (n > 0),
    n_present BIGINT CHECK (n_present >= 0),
    mean DOUBLE NOT NULL,
    sd DOUBLE NOT NULL CHECK (sd >= 0),
    score_share DOUBLE,
    covariance_share DOUBLE,
    mean_score DOUBLE NOT NULL,
    identity_error DOUBLE NOT NULL CHECK (identity_error >= 0),
    UNIQUE (study, task, layer, head, source_role, query_kind, query_layer, query_feature, key_kind, key_layer, key_feature),
    CHECK ((query_kind = 'rest') = (key_kind = 'rest')),
    CHECK ((query_kind = 'rest') = (rank IS NULL)),
    CHECK ((query_kind = 'feature') = (query_feature IS NOT NULL)),
    CHECK (n_present <= n),
    CHECK (query_kind = 'rest' OR n_part_pairs = 1)
);
COMMENT ON TABLE qk_feature_pairs IS 'One row per head, source role and pair of parts: what a part of the query at the destination role and a part of the key at the source role add to the head''s attention score (after K24 Fig. 18, which has in the query what a carrier head brings: qk_carried_pairs). With the scale of the LayerNorm held fixed, query and key are linear in the residual stream, whose parts are token and position embedding, MLPs, and the features, error and biases of the SAEs of earlier attention layers; score = c sum over pairs of (q_p R_i) . (k_r R_j), c the model''s scaling and R its rotary positions. Pairs kept: those among the first qk_features.top_pairs by either rank; all others are the row rest, so that mean and covariance_share sum over the rows of a head and role to the score. Raw weights. MLP outputs are not split, and a layer without an SAE has its attention output in one piece.';
COMMENT ON COLUMN qk_feature_pairs.study IS 'Study the row belongs to';
COMMENT ON COLUMN qk_feature_pairs.task IS 'Task whose prompts were run';
COMMENT ON COLUMN qk_feature_pairs.layer IS 'Layer of the head whose score is split, from 0';
COMMENT ON COLUMN qk_feature_pairs.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN qk_feature_pairs.chosen_by IS 'Why this head: its role, the score that it is among the largest by where no head has the role, or that the study names it';
COMMENT ON COLUMN qk_feature_pairs.source_role IS 'Role whose key is read; A-B: the score of role A less that of role B, pair by pair';
COMMENT ON COLUMN qk_feature_pairs.query_kind IS 'Part of the query. feature: an active SAE feature of an earlier attention layer. sae_error, sae_bias: z - SAE(z), b_dec through W_O. output_bias: b_O. attention: output of a layer without an SAE. mlp, embedding, position (absolute positions only): the other writers. query_bias: what the LayerNorm''s bias and b_Q give. rest: all other pairs together';
COMMENT ON COLUMN qk_feature_pairs.query_layer IS 'Layer of the query part; NULL for embedding, position, query_bias and rest';
COMMENT ON COLUMN qk_feature_pairs.query_feature IS 'Index of the feature in the SAE of query_layer; NULL for other kinds';
COMMENT ON COLUMN qk_feature_pairs.key_kind IS 'Part of the key, as query_kind, with key_bias (LayerNorm''s bias and b_K). With SAEs on the residual stream (residual_sae, qk_features.residual_sae) the key''s stream is split by an SAE on hook_resid_pre of the head''s layer instead: residual_feature, residual_error, residual_bias';
COMMENT ON COLUMN qk_feature_pairs.key_layer IS 'Layer of the key part; NULL for embedding, position, key_bias and rest';
COMMENT ON COLUMN qk_feature_pairs.key_feature IS 'Index of the feature in the SAE of key_layer; NULL for other kinds';
COMMENT ON COLUMN qk_feature_pairs.rank IS 'Rank of |mean| among all pairs of the head and role, from 0; NULL for rest';
COMMENT ON COLUMN qk_feature_pairs.covariance_rank IS 'Rank of |covariance with the score|, from 0; NULL for rest';
COMMENT ON COLUMN qk_feature_pairs.n_part_pairs IS '1; for rest the number of pairs that it sums up';
COMMENT ON COLUMN qk_feature_pairs.n IS 'Prompts';
COMMENT ON COLUMN qk_feature_pairs.n_present IS 'Prompts in which both parts are there (for A-B at A or at B); NULL for rest';
COMMENT ON COLUMN qk_feature_pairs.mean IS 'Mean contribution to the score over all n prompts, 0 where a part is inactive; in units of the softmax''s argument';
COMMENT ON COLUMN qk_feature_pairs.sd IS 'Standard deviation of the contribution over the n prompts (n - 1)';
COMMENT ON COLUMN qk_feature_pairs.score_share IS 'mean / mean_score: may be negative or far above 1 where contributions cancel; NULL where the mean score is 0';
COMMENT ON COLUMN qk_feature_pairs.covariance_share IS 'cov(contribution, score) / var(score) over prompts: sums to 1 over all pairs; NULL where the score does not vary';
COMMENT ON COLUMN qk_feature_pairs.mean_score IS 'Mean attention score of the model''s run, or difference of two';
COMMENT ON COLUMN qk_feature_pairs.identity_error IS 'Largest |sum of all pairs - score of the model''s run| over prompts: rounding of the forward pass only';
