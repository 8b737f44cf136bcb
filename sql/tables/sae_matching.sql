-- formula: 3
-- per: site
CREATE TABLE sae_matching (
    study VARCHAR,
    layer INTEGER NOT NULL,
    other_study VARCHAR NOT NULL,
    other_layer INTEGER NOT NULL,
    other_sae VARCHAR NOT NULL,
    compared VARCHAR NOT NULL,
    space VARCHAR NOT NULL,
    same_corpus BOOLEAN NOT NULL,
    feature INTEGER NOT NULL,
    matched_feature INTEGER,
    matched_cosine DOUBLE,
    best_feature INTEGER,
    best_cosine DOUBLE,
    encoder_cosine DOUBLE,
    n_active BIGINT,
    matched_n_active BIGINT,
    density_shift DOUBLE,
    n_examples INTEGER,
    n_common_examples INTEGER,
    example_overlap DOUBLE,
    matching_method VARCHAR NOT NULL,
    random_mean_cosine DOUBLE
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
