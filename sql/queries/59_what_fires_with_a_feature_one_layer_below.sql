-- Which features of the layer below are active at the same tokens as the strongest feature of the last layer?
WITH chosen AS (
    SELECT c.study, c.layer, c.feature, s.n_active, max(c.other_layer) AS below
    FROM feature_coactivation AS c
    JOIN feature_statistics AS s USING (study, layer, feature)
    WHERE
        c.study = coalesce(getvariable('study'), 'organism') AND c.other_layer < c.layer
        AND s.n_active BETWEEN 100 AND 5000
    GROUP BY ALL
    ORDER BY c.layer DESC, any_value(s.max_activation) DESC
    LIMIT 1
)
SELECT
    'L' || c.layer || 'F' || c.feature AS feature,
    'L' || c.other_layer || 'F' || c.other_feature AS other,
    round(c.phi, 3) AS phi,
    c.n_coactive AS n_both,
    round(c.n_coactive / chosen.n_active, 3) AS share_of_feature,
    round(c.n_coactive / s.n_active, 3) AS share_of_other
FROM chosen
-- All rows of two layers are the strongest partners of every feature of either.
JOIN feature_coactivation AS c
    ON c.study = chosen.study AND c.layer = chosen.layer AND c.feature = chosen.feature
    AND c.other_layer = chosen.below
JOIN feature_statistics AS s
    ON s.study = c.study AND s.layer = c.other_layer AND s.feature = c.other_feature
ORDER BY c.rank;
