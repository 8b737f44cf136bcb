-- formula: 1
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae, head < n_heads
CREATE TABLE feature_dfa_variance (
    study VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    feature INTEGER NOT NULL CHECK (feature >= 0),
    interval INTEGER NOT NULL CHECK (interval >= 0),
    activation_above DOUBLE NOT NULL CHECK (activation_above >= 0),
    head INTEGER CHECK (head >= 0),
    source_class VARCHAR CHECK (source_class IN ('bos', 'current', 'main_source_token', 'same_token', 'after_same_token', 'other')),
    n BIGINT NOT NULL CHECK (n > 0),
    total_sum DOUBLE NOT NULL,
    total_sum_squares DOUBLE NOT NULL CHECK (total_sum_squares >= 0),
    part_sum DOUBLE NOT NULL,
    part_sum_squares DOUBLE NOT NULL CHECK (part_sum_squares >= 0),
    part_total_product DOUBLE NOT NULL,
    main_source_token_id INTEGER CHECK (main_source_token_id >= 0),
    UNIQUE (study, layer, feature, interval, head, source_class),
    CHECK ((head IS NULL) <> (source_class IS NULL))
);
COMMENT ON TABLE feature_dfa_variance IS 'Direct feature attribution over a corpus: one row per feature, activation interval, and head or class of source positions; sums over all tokens of the first features.dfa_corpus_sequences sequences at which the feature is active (K24 App. E.3, G, H, Fig. 12). The total t is the pre-activation less the constant that the feature has at z = 0; parts p by head, and parts by class of sources, each sum to it. From the sums follow means, variances and shares of the variance, cov(p, t) / var(t), above any interval''s lower bound: the view feature_dfa_shares. Attention patterns are taken as given.';
COMMENT ON COLUMN feature_dfa_variance.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dfa_variance.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_dfa_variance.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_dfa_variance.interval IS 'Interval of activations of feature_intervals, 0 = the weakest';
COMMENT ON COLUMN feature_dfa_variance.activation_above IS 'Lower bound of the interval, in units of z';
COMMENT ON COLUMN feature_dfa_variance.head IS 'Head whose part this is; NULL for parts by class of sources';
COMMENT ON COLUMN feature_dfa_variance.source_class IS 'Class of source positions whose part this is, the first that fits: bos (position 0 or a BOS token); current (the token itself); main_source_token (the token of main_source_token_id); same_token (an earlier position with the current token); after_same_token (a position behind an earlier one with the current token); other. NULL for parts by head';
COMMENT ON COLUMN feature_dfa_variance.n IS 'Tokens summed over';
COMMENT ON COLUMN feature_dfa_variance.total_sum IS 'Sum of t over these tokens';
COMMENT ON COLUMN feature_dfa_variance.total_sum_squares IS 'Sum of t squared';
COMMENT ON COLUMN feature_dfa_variance.part_sum IS 'Sum of p';
COMMENT ON COLUMN feature_dfa_variance.part_sum_squares IS 'Sum of p squared';
COMMENT ON COLUMN feature_dfa_variance.part_total_product IS 'Sum of p times t';
COMMENT ON COLUMN feature_dfa_variance.main_source_token_id IS 'Id of the token that is the strongest source, but for position 0, of most examples of feature_dfa; NULL without examples';
