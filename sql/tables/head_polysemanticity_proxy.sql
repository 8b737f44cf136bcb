-- formula: 3
-- per: site
-- below: layer < n_layers, head < n_heads
CREATE TABLE head_polysemanticity_proxy (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    measure VARCHAR CHECK (measure IN ('decoder_slice', 'ngrams', 'either')),
    similarity_threshold DOUBLE NOT NULL CHECK (similarity_threshold > 0),
    n_compared INTEGER NOT NULL CHECK (n_compared > 0),
    mean_similarity DOUBLE NOT NULL,
    n_clusters INTEGER NOT NULL CHECK (n_clusters > 0),
    effective_clusters DOUBLE NOT NULL,
    effective_features DOUBLE,
    largest_share DOUBLE NOT NULL CHECK (largest_share > 0),
    null_n_clusters DOUBLE NOT NULL CHECK (null_n_clusters >= 0),
    null_n_clusters_sd DOUBLE NOT NULL CHECK (null_n_clusters_sd >= 0),
    null_effective_clusters DOUBLE NOT NULL CHECK (null_effective_clusters >= 0),
    null_effective_features DOUBLE CHECK (null_effective_features >= 0),
    null_mean_similarity DOUBLE,
    share_of_null_below DOUBLE NOT NULL CHECK (share_of_null_below BETWEEN 0 AND 1),
    n_draws INTEGER NOT NULL CHECK (n_draws > 0),
    clusters INTEGER[] NOT NULL,
    features INTEGER[] NOT NULL,
    PRIMARY KEY (study, layer, head, measure),
    CHECK (n_clusters <= n_compared),
    CHECK (len(clusters) = n_compared AND len(features) = n_compared),
    CHECK (effective_clusters BETWEEN 0.999999 AND n_clusters * 1.000001),
    CHECK (effective_features BETWEEN 0.999999 AND n_compared * 1.000001),
    CHECK (largest_share <= 1),
    CHECK (list_max(clusters) = n_clusters - 1)
);
COMMENT ON TABLE head_polysemanticity_proxy IS 'One row per head and measure of likeness: how many clusters the features that a head writes most fall into, beside features drawn at random. An automatic proxy of polysemanticity, not the judgement of people that Kissane et al. 2024, Table 3 reports: that is head_labels and head_label_summary.';
COMMENT ON COLUMN head_polysemanticity_proxy.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_polysemanticity_proxy.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_polysemanticity_proxy.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_polysemanticity_proxy.measure IS 'When two features are alike. decoder_slice: cosine of the head''s slices of their decoder rows (the head writes alike; rows of one SAE that live in one head tend to be orthogonal there). ngrams: weighted Jaccard index of their n-gram profiles, feature_ngrams with n = 1, 2, 3, weighted by share - n_occurrences / n_tokens where positive (they fire on the same text, frequent tokens aside). either: the larger of the two, each divided by its threshold';
COMMENT ON COLUMN head_polysemanticity_proxy.similarity_threshold IS 'Least mean similarity between two clusters that are joined (average linkage)';
COMMENT ON COLUMN head_polysemanticity_proxy.n_compared IS 'Features compared: the first ten of the head that fired (head_features.alive_rank < 10), or fewer where fewer fired';
COMMENT ON COLUMN head_polysemanticity_proxy.mean_similarity IS 'Mean similarity over their pairs; for either in units of the thresholds';
COMMENT ON COLUMN head_polysemanticity_proxy.n_clusters IS 'Clusters found, 1 to n_features; 1: all features are alike';
COMMENT ON COLUMN head_polysemanticity_proxy.effective_clusters IS 'exp of the entropy of the clusters'' sizes: as many equally large clusters would be as even, 1 to n_clusters';
COMMENT ON COLUMN head_polysemanticity_proxy.effective_features IS 'exp of the entropy of the eigenvalues of the similarity matrix over n_features, 1 (all the same) to n_features (nothing in common), without a threshold (Friedman & Dieng 2023); NULL for either, which is no kernel';
COMMENT ON COLUMN head_polysemanticity_proxy.largest_share IS 'Share of the features in the largest cluster';
COMMENT ON COLUMN head_polysemanticity_proxy.null_n_clusters IS 'Mean n_clusters of as many features of the layer, compared in the same way at the same head: for each of the heads features one drawn from those within 5% of the ranks by density, since features of one head are denser than most';
COMMENT ON COLUMN head_polysemanticity_proxy.null_n_clusters_sd IS 'Standard deviation of n_clusters over the draws';
COMMENT ON COLUMN head_polysemanticity_proxy.null_effective_clusters IS 'Mean effective_clusters of the draws';
COMMENT ON COLUMN head_polysemanticity_proxy.null_effective_features IS 'Mean effective_features of the draws';
COMMENT ON COLUMN head_polysemanticity_proxy.null_mean_similarity IS 'Mean similarity over the pairs of the draws';
COMMENT ON COLUMN head_polysemanticity_proxy.share_of_null_below IS 'Share of the draws with fewer clusters than the head''s features: near 0, the head writes fewer kinds of features than chance; near 1, more';
COMMENT ON COLUMN head_polysemanticity_proxy.n_draws IS 'Draws of the null';
COMMENT ON COLUMN head_polysemanticity_proxy.clusters IS 'Cluster of each feature, from 0, in the order of features';
COMMENT ON COLUMN head_polysemanticity_proxy.features IS 'The features compared, by attribution';
