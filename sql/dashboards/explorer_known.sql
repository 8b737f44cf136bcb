-- What is known of each feature of the layer, as the explorer names it: label, else families.
SELECT
    s.feature,
    coalesce(
        (
            SELECT last(l.label ORDER BY l.rater)
            FROM feature_labels AS l
            WHERE
                l.study = s.study AND l.layer = s.layer AND l.feature = s.feature
                AND l.label <> ''
        ),
        (
            SELECT string_agg(replace(f.family, '_', ' '), ', ' ORDER BY f.family)
            FROM feature_family_labels AS f
            WHERE f.study = s.study AND f.layer = s.layer AND f.feature = s.feature
        )
    ) AS meaning,
    e.token AS fires_on,
    t.token AS promotes
FROM feature_statistics AS s
LEFT JOIN feature_top_examples AS e
    ON e.study = s.study AND e.layer = s.layer AND e.feature = s.feature AND e.rank = 0
LEFT JOIN feature_logit_effects AS t
    ON t.study = s.study AND t.layer = s.layer AND t.feature = s.feature
    AND t.extreme = 'top' AND t.rank = 0
WHERE s.study = $study AND s.layer = $layer
ORDER BY s.feature;
