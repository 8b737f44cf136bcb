-- formula: 2
-- per: site
-- references: feature_statistics (study, layer, feature)
-- references: study, layer, neighbour -> feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae, neighbour < d_sae
CREATE TABLE feature_neighbours (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    measure VARCHAR CHECK (measure IN ('coactivation', 'decoder_cosine')),
    rank INTEGER CHECK (rank >= 0),
    neighbour INTEGER NOT NULL CHECK (neighbour >= 0),
    similarity DOUBLE NOT NULL CHECK (similarity BETWEEN -1.000001 AND 1.000001),
    n_coactive BIGINT NOT NULL CHECK (n_coactive >= 0),
    PRIMARY KEY (study, layer, feature, measure, rank),
    UNIQUE (study, layer, feature, measure, neighbour),
    CHECK (neighbour <> feature)
);
COMMENT ON TABLE feature_neighbours IS 'One row per feature, measure and rank: the other features of the same SAE that are most often active together with it, or whose decoder rows point most nearly the same way. Exact over all pairs and all tokens read. Features that never fired have no rows and are nobody''s neighbours.';
COMMENT ON COLUMN feature_neighbours.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_neighbours.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_neighbours.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_neighbours.measure IS 'coactivation: by phi; decoder_cosine: by the cosine of the decoder rows';
COMMENT ON COLUMN feature_neighbours.rank IS 'Rank by similarity within feature and measure, 0 = largest; of equals the lower feature first';
COMMENT ON COLUMN feature_neighbours.neighbour IS 'Index of the other feature';
COMMENT ON COLUMN feature_neighbours.similarity IS 'coactivation: phi coefficient, Pearson''s correlation of the indicators "activation > 0" of the two features over all N tokens read, (N n_coactive - n_i n_j) / sqrt(n_i (N - n_i) n_j (N - n_j)); only values above 0 are listed. decoder_cosine: cosine of the two rows of W_dec, -1 to 1';
COMMENT ON COLUMN feature_neighbours.n_coactive IS 'Tokens read at which both features are active';
