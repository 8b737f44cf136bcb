SELECT
    feature,
    density,
    max_activation,
    top_head,
    top_head_attribution,
    promoted[1] AS top_token,
    suppressed[1] AS bottom_token
FROM feature_overview
WHERE study = $study AND layer = $layer
ORDER BY feature;
