SELECT
    top_head AS head,
    count(*) AS n_features,
    arg_max(feature, top_head_attribution, 8) FILTER (WHERE n_active > 0) AS features
FROM feature_overview
WHERE study = $study AND layer = $layer
GROUP BY top_head
ORDER BY top_head;
