-- formula: 3
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_ngrams (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    ngram_size INTEGER CHECK (ngram_size BETWEEN 1 AND 3),
    rank INTEGER CHECK (rank >= 0),
    token_ids INTEGER[] NOT NULL,
    text VARCHAR NOT NULL,
    n_active BIGINT NOT NULL CHECK (n_active >= 2),
    n_occurrences BIGINT NOT NULL CHECK (n_occurrences > 0),
    active_share DOUBLE NOT NULL CHECK (active_share > 0 AND active_share <= 1),
    rate DOUBLE NOT NULL CHECK (rate > 0 AND rate <= 1),
    mean_activation DOUBLE NOT NULL CHECK (mean_activation > 0),
    PRIMARY KEY (study, layer, feature, ngram_size, rank),
    CHECK (len(token_ids) = ngram_size),
    CHECK (n_active <= n_occurrences)
);
COMMENT ON TABLE feature_ngrams IS 'One row per feature, n and rank: the n-grams (n = 1, 2, 3 tokens, the last one being the active token) on which a feature is active most often. An n-gram lies within one sequence and holds no position 0 and no BOS. Listed are those with n_active >= 2.';
COMMENT ON COLUMN feature_ngrams.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_ngrams.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_ngrams.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_ngrams.ngram_size IS 'Tokens of the n-gram, the active token included';
COMMENT ON COLUMN feature_ngrams.rank IS 'Rank by n_active among the n-grams of this feature and size, 0 = most often; of equals the one with fewer occurrences, then the one with the smaller token ids';
COMMENT ON COLUMN feature_ngrams.token_ids IS 'Ids of its tokens, in the order of the text';
COMMENT ON COLUMN feature_ngrams.text IS 'The text that they make together; bytes that are no character show as \xe2';
COMMENT ON COLUMN feature_ngrams.n_active IS 'Tokens at which this n-gram ends and the feature is active';
COMMENT ON COLUMN feature_ngrams.n_occurrences IS 'Tokens read at which this n-gram ends, whether or not the feature is active';
COMMENT ON COLUMN feature_ngrams.active_share IS 'n_active / all tokens at which the feature is active (feature_statistics.n_active), 0 to 1';
COMMENT ON COLUMN feature_ngrams.rate IS 'n_active / n_occurrences: the probability that the feature is active given the n-gram, 0 to 1';
COMMENT ON COLUMN feature_ngrams.mean_activation IS 'Mean activation over those n_active tokens, in units of z';
