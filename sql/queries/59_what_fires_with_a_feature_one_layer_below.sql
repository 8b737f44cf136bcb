-- Which features of the layer below are active at the same tokens as the strongest feature of the last layer?
WITH chosen AS (
    SELECT study, layer, feature, n_active
    FROM feature_statistics
    WHERE study = coalesce(getvariable('study'), 'organism') AND n_active BETWEEN 100 AND 5000
    ORDER BY layer DESC, max_activation DESC
    LIMIT 1
),
-- One feature's tokens first: all pairs of two layers are tens of millions.
own AS MATERIALIZED (
    SELECT a.study, a.layer, a.feature, chosen.n_active, a.sequence, a.position
    FROM feature_activations AS a
    JOIN chosen USING (study, layer, feature)
),
below AS (
    SELECT max(s.layer) AS layer
    FROM feature_statistics AS s
    JOIN chosen USING (study)
    WHERE s.layer < chosen.layer
)
SELECT
    'L' || own.layer || 'F' || own.feature AS feature,
    'L' || b.layer || 'F' || b.feature AS other,
    count(*) AS n_both,
    round(count(*) / any_value(own.n_active), 3) AS share_of_feature,
    round(count(*) / any_value(s.n_active), 3) AS share_of_other
FROM own
JOIN feature_activations AS b
    ON b.study = own.study AND b.sequence = own.sequence AND b.position = own.position
JOIN below ON b.layer = below.layer
JOIN feature_statistics AS s ON s.study = b.study AND s.layer = b.layer AND s.feature = b.feature
GROUP BY own.layer, own.feature, b.layer, b.feature
ORDER BY n_both DESC, other
LIMIT 20;
