-- Features of other layers that are active at the same tokens.
SELECT
    a.other_layer,
    a.other_feature,
    a.phi,
    a.n_coactive,
    e.token AS fires_on,
    t.token AS promotes
FROM feature_coactivation AS a
LEFT JOIN feature_top_examples AS e
    ON e.study = a.study AND e.layer = a.other_layer AND e.feature = a.other_feature
    AND e.rank = 0
LEFT JOIN feature_logit_effects AS t
    ON t.study = a.study AND t.layer = a.other_layer AND t.feature = a.other_feature
    AND t.extreme = 'top' AND t.rank = 0
WHERE a.study = $study AND a.layer = $layer AND a.feature = $feature AND a.rank < 3
ORDER BY a.other_layer, a.rank;
