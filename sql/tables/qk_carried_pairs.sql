-- formula: 1
-- below: layer < n_layers, head < n_heads, carrier_layer < n_layers, carrier_head < n_heads, query_layer < n_layers, key_layer < n_layers
CREATE TABLE qk_carried_pairs (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    chosen_by VARCHAR NOT NULL,
    carrier_layer INTEGER NOT NULL CHECK (carrier_layer >= 0),
    carrier_head INTEGER NOT NULL CHECK (carrier_head >= 0),
    name_order VARCHAR NOT NULL CHECK (name_order IN ('ABBA', 'BABA')),
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
    UNIQUE (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role, query_kind, query_layer, query_feature, key_kind, key_layer, key_feature),
    CHECK ((query_kind = 'rest') = (key_kind = 'rest')),
    CHECK ((query_kind = 'rest') = (rank IS NULL)),
    CHECK (carrier_layer < layer),
    CHECK ((query_kind = 'feature') = (query_feature IS NOT NULL)),
    CHECK (n_present <= n),
    CHECK (query_kind = 'rest' OR n_part_pairs = 1)
);
COMMENT ON TABLE qk_carried_pairs IS 'One row per head, carrier, order of names, source role and pair of parts: what a part of the stream at qk_features.carried_from (S2), brought to the destination by the OV circuit of the carrier head, and a part of the key at the first or second name add to the head''s attention score (K24 App. K.3, Fig. 18). The carrier''s attention weight and the scales of both LayerNorms are held fixed; everything else in the query is the part not_carried, so that all pairs sum to the score of the model''s run. Pairs kept: those among the first qk_features.top_pairs by either rank; all others are the row rest. Raw weights. The table qk_feature_pairs splits the whole query by its writers at the destination itself: another decomposition of the same score.';
COMMENT ON COLUMN qk_carried_pairs.study IS 'Study the row belongs to';
COMMENT ON COLUMN qk_carried_pairs.task IS 'Task whose prompts were run';
COMMENT ON COLUMN qk_carried_pairs.layer IS 'Layer of the head whose score is split, from 0';
COMMENT ON COLUMN qk_carried_pairs.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN qk_carried_pairs.chosen_by IS 'Why this head and this carrier: their roles, the score that they are among the largest by where no head has the role, or that the study names them';
COMMENT ON COLUMN qk_carried_pairs.carrier_layer IS 'Layer of the carrier head, from 0';
COMMENT ON COLUMN qk_carried_pairs.carrier_head IS 'Carrier head within its layer, from 0: it reads the stream at qk_features.carried_from and writes at the destination';
COMMENT ON COLUMN qk_carried_pairs.name_order IS 'ABBA (IO is named first) or BABA, as in ioi_prompts; prompts of one order only';
COMMENT ON COLUMN qk_carried_pairs.source_role IS 'Role whose key is read: Name1 or Name2, the first and the second name of the prompt (IO and S1 in ABBA, S1 and IO in BABA prompts); A-B: the score of role A less that of role B, pair by pair';
COMMENT ON COLUMN qk_carried_pairs.query_kind IS 'Part of the query. Carried from qk_features.carried_from: feature, an active SAE feature of an attention layer before the carrier; sae_error, sae_bias, output_bias, attention, mlp, embedding, position, as in qk_feature_pairs; value_bias, what the LayerNorm''s bias and b_V of the carrier give. not_carried: the rest of the query, written by other heads, from other positions, or its bias. rest: all other pairs together';
COMMENT ON COLUMN qk_carried_pairs.query_layer IS 'Layer of the query part, before the carrier; NULL for embedding, position, value_bias, not_carried and rest';
COMMENT ON COLUMN qk_carried_pairs.query_feature IS 'Index of the feature in the SAE of query_layer; NULL for other kinds';
COMMENT ON COLUMN qk_carried_pairs.key_kind IS 'Part of the key at the name: kinds as in qk_feature_pairs, with key_bias, and residual_feature, residual_error, residual_bias where SAEs on the residual stream are given (residual_sae, qk_features.residual_sae)';
COMMENT ON COLUMN qk_carried_pairs.key_layer IS 'Layer of the key part; NULL for embedding, position, key_bias and rest';
COMMENT ON COLUMN qk_carried_pairs.key_feature IS 'Index of the feature in the SAE of key_layer; NULL for other kinds';
COMMENT ON COLUMN qk_carried_pairs.rank IS 'Rank of |mean| among the pairs of the head, carrier and role, from 0: pairs with a carried part first, those with the part not_carried behind them; NULL for rest';
COMMENT ON COLUMN qk_carried_pairs.covariance_rank IS 'Rank of |covariance with the score|, from 0, in the same two groups; NULL for rest';
COMMENT ON COLUMN qk_carried_pairs.n_part_pairs IS '1; for rest the number of pairs that it sums up';
COMMENT ON COLUMN qk_carried_pairs.n IS 'Prompts';
COMMENT ON COLUMN qk_carried_pairs.n_present IS 'Prompts in which both parts are there (for A-B at A or at B); NULL for rest';
COMMENT ON COLUMN qk_carried_pairs.mean IS 'Mean contribution to the score over all n prompts, 0 where a part is inactive; in units of the softmax''s argument';
COMMENT ON COLUMN qk_carried_pairs.sd IS 'Standard deviation of the contribution over the n prompts (n - 1)';
COMMENT ON COLUMN qk_carried_pairs.score_share IS 'mean / mean_score: may be negative or far above 1 where contributions cancel; NULL where the mean score is 0';
COMMENT ON COLUMN qk_carried_pairs.covariance_share IS 'cov(contribution, score) / var(score) over prompts: sums to 1 over all pairs; NULL where the score does not vary';
COMMENT ON COLUMN qk_carried_pairs.mean_score IS 'Mean attention score of the model''s run, or difference of two';
COMMENT ON COLUMN qk_carried_pairs.identity_error IS 'Largest |sum of all pairs - score of the model''s run| over prompts: rounding of the forward pass only';
