-- formula: 3
-- per: site
-- below: layer < n_layers, feature < d_sae
CREATE TABLE sae_matching (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    other_study VARCHAR,
    other_layer INTEGER CHECK (other_layer >= 0),
    other_sae VARCHAR CHECK (regexp_full_match(other_sae, '[0-9a-f]{16}')),
    compared VARCHAR CHECK (compared IN ('study', 'layer', 'version')),
    space VARCHAR NOT NULL CHECK (space IN ('z', 'residual')),
    same_corpus BOOLEAN NOT NULL,
    feature INTEGER CHECK (feature >= 0),
    matched_feature INTEGER CHECK (matched_feature >= 0),
    matched_cosine DOUBLE CHECK (matched_cosine BETWEEN -1.000001 AND 1.000001),
    best_feature INTEGER CHECK (best_feature >= 0),
    best_cosine DOUBLE CHECK (best_cosine BETWEEN -1.000001 AND 1.000001),
    encoder_cosine DOUBLE CHECK (encoder_cosine BETWEEN -1.000001 AND 1.000001),
    n_active BIGINT CHECK (n_active >= 0),
    matched_n_active BIGINT CHECK (matched_n_active >= 0),
    density_shift DOUBLE,
    n_examples INTEGER CHECK (n_examples >= 0),
    n_common_examples INTEGER CHECK (n_common_examples >= 0),
    example_overlap DOUBLE CHECK (example_overlap BETWEEN 0 AND 1),
    matching_method VARCHAR NOT NULL,
    random_mean_cosine DOUBLE CHECK (random_mean_cosine BETWEEN -1.000001 AND 1.000001),
    PRIMARY KEY (study, layer, compared, other_study, other_layer, other_sae, feature),
    CHECK ((matched_feature IS NULL) = (matched_cosine IS NULL)),
    CHECK (matched_cosine <= best_cosine + 1e-5),
    CHECK (n_common_examples <= n_examples)
);
COMMENT ON TABLE sae_matching IS 'One row per comparison and feature: the feature''s partner in another SAE, in a one-to-one matching of decoder directions with the largest sum of cosines (SAE diff). Comparisons: those of the study file (comparisons), and by itself the previous published version of the layer''s SAE where one with other weights is still stored. No rows where there is nothing to compare with. Summary: view sae_matching_summary.';
COMMENT ON COLUMN sae_matching.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_matching.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN sae_matching.other_study IS 'Study of the other SAE';
COMMENT ON COLUMN sae_matching.other_layer IS 'Layer of the other SAE';
COMMENT ON COLUMN sae_matching.other_sae IS 'weights_hash of the other SAE';
COMMENT ON COLUMN sae_matching.compared IS 'study: another study''s SAE (another seed, architecture or training). layer: another layer of this study or of another. version: the previous published version of this SAE';
COMMENT ON COLUMN sae_matching.space IS 'Where directions are compared. z: rows of W_dec, for SAEs of one layer. residual: d_i W_O (processed weights), for SAEs of two layers, whose z have no common basis';
COMMENT ON COLUMN sae_matching.same_corpus IS 'Whether both feature passes read the same token sequences, and as many tokens of them';
COMMENT ON COLUMN sae_matching.feature IS 'Index of the feature in this SAE';
COMMENT ON COLUMN sae_matching.matched_feature IS 'Index of its partner in the other SAE; NULL for a zero decoder row and where the other SAE has too few features';
COMMENT ON COLUMN sae_matching.matched_cosine IS 'Cosine between the two directions, -1 to 1; compare with random_mean_cosine';
COMMENT ON COLUMN sae_matching.best_feature IS 'Feature of the other SAE with the largest cosine, whether or not it is another feature''s partner';
COMMENT ON COLUMN sae_matching.best_cosine IS 'That cosine';
COMMENT ON COLUMN sae_matching.encoder_cosine IS 'Cosine between the columns of W_enc of the feature and its partner; NULL in the residual space';
COMMENT ON COLUMN sae_matching.n_active IS 'Tokens at which the feature is active (feature_statistics)';
COMMENT ON COLUMN sae_matching.matched_n_active IS 'Tokens at which the partner is active, in its own feature pass';
COMMENT ON COLUMN sae_matching.density_shift IS 'log10 density of the partner - log10 density of the feature; NULL where either never fired. With same_corpus false it holds the difference of the texts too';
COMMENT ON COLUMN sae_matching.n_examples IS 'Top examples of the feature (feature_top_examples); NULL with same_corpus false or where either side has none';
COMMENT ON COLUMN sae_matching.n_common_examples IS 'Tokens (sequence, position) that are top examples of both';
COMMENT ON COLUMN sae_matching.example_overlap IS 'Jaccard index of the two sets of top examples, 0 to 1; NULL where n_examples is';
COMMENT ON COLUMN sae_matching.matching_method IS 'hungarian: the optimum. mutual best, then hungarian: above 8192 features on a side, rows that are each other''s best are matched in rounds until the rest can be matched exactly';
COMMENT ON COLUMN sae_matching.random_mean_cosine IS 'Mean cosine of a matching, by the same method, of as many random decoder rows (uniform on the unit sphere of z; taken through the W_O of each layer in the residual space): what SAEs with nothing in common give';
