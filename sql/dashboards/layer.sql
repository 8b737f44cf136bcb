SELECT
    o.feature,
    o.density,
    o.max_activation,
    o.mean_activation,
    o.top_head,
    o.top_head_attribution,
    e.token AS strongest_token,
    o.promoted[1] AS top_token,
    o.suppressed[1] AS bottom_token
FROM feature_overview AS o
LEFT JOIN feature_top_examples AS e
    ON (e.study, e.layer, e.feature, e.rank) = (o.study, o.layer, o.feature, 0)
WHERE o.study = $study AND o.layer = $layer
ORDER BY o.feature;
