-- Ranks are 0 .. n - 1, the strongest first; the first is the largest activation, and a feature has
-- examples if and only if it fired
SELECT * FROM (
    SELECT
        feature, rank, activation, max_activation, n_active,
        row_number() OVER ranked - 1 AS number,
        lag(activation) OVER ranked AS stronger
    FROM feature_statistics AS s
    FULL JOIN feature_top_examples AS e USING (study, layer, feature)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    WINDOW ranked AS (PARTITION BY feature ORDER BY rank)
)
WHERE (
    (n_active = 0 AND rank IS NULL)
    OR (
        rank = number
        AND activation <= coalesce(stronger, activation)
        AND (rank > 0 OR abs(activation - max_activation) <= 1e-6 * max_activation)
    )
) IS NOT TRUE;
