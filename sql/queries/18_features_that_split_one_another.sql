-- Which pairs of features of one SAE are near-copies: active together and writing the same direction?
WITH pairs AS (
    SELECT
        study,
        layer,
        least(feature, neighbour) AS one,
        greatest(feature, neighbour) AS other,
        max(similarity) FILTER (measure = 'coactivation') AS phi,
        max(similarity) FILTER (measure = 'decoder_cosine') AS cosine,
        max(n_coactive) AS n_coactive
    FROM feature_neighbours
    WHERE study = coalesce(getvariable('study'), 'organism')
    GROUP BY ALL
    HAVING phi IS NOT NULL AND cosine IS NOT NULL
)
SELECT
    layer,
    one,
    other,
    round(phi, 2) AS phi,
    round(cosine, 2) AS decoder_cosine,
    n_coactive,
    a.n_active AS n_active_one,
    b.n_active AS n_active_other
FROM pairs
JOIN feature_statistics AS a USING (study, layer)
JOIN feature_statistics AS b USING (study, layer)
WHERE a.feature = one AND b.feature = other
ORDER BY pairs.phi * pairs.cosine DESC, layer, one
LIMIT 20;
