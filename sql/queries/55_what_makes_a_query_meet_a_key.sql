-- Which pairs of parts make END attend to IO rather than to S1, and what are the features?
SELECT
    'L' || p.layer || 'H' || p.head AS head,
    p.chosen_by,
    p.source_role,
    p.rank,
    p.query_kind || coalesce(' L' || p.query_layer, '') || coalesce(' #' || p.query_feature, '') AS query_part,
    q.token AS query_fires_on,
    p.key_kind || coalesce(' L' || p.key_layer, '') || coalesce(' #' || p.key_feature, '') AS key_part,
    k.token AS key_fires_on,
    p.n_part_pairs,
    p.n_present,
    round(p.mean, 3) AS mean,
    round(p.sd, 3) AS sd,
    round(p.covariance_share, 3) AS share_of_variance,
    round(p.mean_score, 3) AS mean_score
FROM qk_feature_pairs AS p
LEFT JOIN feature_top_examples AS q
    ON q.study = p.study AND q.layer = p.query_layer AND q.feature = p.query_feature AND q.rank = 0
LEFT JOIN feature_top_examples AS k
    ON k.study = p.study AND k.layer = p.key_layer AND k.feature = p.key_feature AND k.rank = 0
    AND p.key_kind = 'feature'
WHERE p.study = coalesce(getvariable('study'), 'organism')
    AND p.source_role IN ('IO', 'IO-S1')
    AND coalesce(least(p.rank, p.covariance_rank) < 10, true)
ORDER BY p.layer, p.head, p.source_role, p.rank NULLS LAST;
