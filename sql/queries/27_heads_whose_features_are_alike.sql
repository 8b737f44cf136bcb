-- Which heads write fewer kinds of features than chance, by the text they fire on (a proxy)?
SELECT
    p.layer,
    p.head,
    p.n_clusters,
    round(p.null_n_clusters, 1) AS clusters_of_random_features,
    round(p.share_of_null_below, 2) AS share_of_null_below,
    round(s.n_clusters, 1) AS clusters_by_direction,
    r.roles,
    f.frequent_tokens AS frequent_tokens_of_top_feature
FROM head_polysemanticity_proxy AS p
JOIN head_polysemanticity_proxy AS s
    ON (s.study, s.layer, s.head, s.measure) = (p.study, p.layer, p.head, 'decoder_slice')
LEFT JOIN (
    SELECT study, layer, head, list(role ORDER BY role) AS roles
    FROM head_roles
    GROUP BY ALL
) AS r ON (r.study, r.layer, r.head) = (p.study, p.layer, p.head)
LEFT JOIN head_features AS f
    ON (f.study, f.layer, f.head, f.alive_rank) = (p.study, p.layer, p.head, 0)
WHERE p.study = coalesce(getvariable('study'), 'organism') AND p.measure = 'ngrams'
ORDER BY p.n_clusters - p.null_n_clusters
LIMIT 20;
