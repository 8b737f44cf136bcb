SELECT
    measure,
    similarity_threshold,
    n_compared,
    n_clusters,
    null_n_clusters,
    null_n_clusters_sd,
    effective_features,
    null_effective_features,
    share_of_null_below,
    clusters
FROM head_polysemanticity_proxy
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY measure;
