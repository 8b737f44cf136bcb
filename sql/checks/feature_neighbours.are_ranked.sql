-- Ranks are 0 .. n - 1, the most similar first, and two features are active together at most as
-- often as each
SELECT * FROM (
    SELECT
        n.feature, measure, rank, neighbour, similarity, n_coactive,
        a.n_active AS n_feature,
        b.n_active AS n_neighbour,
        row_number() OVER ranked - 1 AS number,
        lag(similarity) OVER ranked AS before
    FROM feature_neighbours AS n
    LEFT JOIN feature_statistics AS a USING (study, layer, feature)
    LEFT JOIN feature_statistics AS b
        ON b.study = n.study AND b.layer = n.layer AND b.feature = n.neighbour
    WHERE n.study = getvariable('study') AND n.layer = getvariable('layer')
    WINDOW ranked AS (PARTITION BY n.feature, measure ORDER BY rank)
)
WHERE (
    rank = number
    AND similarity <= coalesce(before, similarity)
    AND n_coactive <= least(n_feature, n_neighbour)
) IS NOT TRUE;
