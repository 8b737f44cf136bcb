-- formula: 1
-- references: feature_statistics (study, layer, feature)
-- references: study, other_layer, other_feature -> feature_statistics (study, layer, feature)
-- below: layer < n_layers, other_layer < n_layers, feature < d_sae
CREATE TABLE feature_coactivation (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    other_layer INTEGER CHECK (other_layer >= 0),
    rank INTEGER CHECK (rank >= 0),
    other_feature INTEGER NOT NULL CHECK (other_feature >= 0),
    phi DOUBLE NOT NULL CHECK (phi > 0 AND phi <= 1.000001),
    n_coactive BIGINT NOT NULL CHECK (n_coactive > 0),
    PRIMARY KEY (study, layer, feature, other_layer, rank),
    UNIQUE (study, layer, feature, other_layer, other_feature),
    CHECK (other_layer <> layer)
);
COMMENT ON TABLE feature_coactivation IS 'One row per feature, other layer with an SAE (of those within features.coactivation_layers) and rank: the features there that are most often active at the same tokens. Exact over all pairs and all tokens read. Features that never fired, or never together with a feature there more often than by chance, have no rows. Within a layer: feature_neighbours. A study with one SAE has no rows.';
COMMENT ON COLUMN feature_coactivation.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_coactivation.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_coactivation.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_coactivation.other_layer IS 'Layer of the other SAE';
COMMENT ON COLUMN feature_coactivation.rank IS 'Rank by phi within feature and other layer, 0 = largest; of equals the lower feature first';
COMMENT ON COLUMN feature_coactivation.other_feature IS 'Index of the other feature in the SAE of other_layer';
COMMENT ON COLUMN feature_coactivation.phi IS 'Phi coefficient: Pearson''s correlation of the indicators "activation > 0" of the two features over all N tokens read, (N n_coactive - n_i n_j) / sqrt(n_i (N - n_i) n_j (N - n_j)); only values above 0 are listed';
COMMENT ON COLUMN feature_coactivation.n_coactive IS 'Tokens read at which both features are active';
