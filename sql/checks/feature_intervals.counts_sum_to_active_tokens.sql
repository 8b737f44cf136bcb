-- The intervals of a feature hold all its active tokens: counts sum to n_active, shares to 1, and
-- the intervals reach from 0 to the largest activation without gaps
SELECT feature, counted, n_active, total_share, lowest, highest, max_activation, n_gaps
FROM (
    SELECT
        feature,
        sum(n_active) AS counted,
        sum(active_share) AS total_share,
        min(low) AS lowest,
        max(high) AS highest,
        count(*) FILTER (abs(low - coalesce(before, low)) > 1e-6 * high OR interval <> number) AS n_gaps
    FROM (
        SELECT
            *,
            lag(high) OVER (PARTITION BY feature ORDER BY interval) AS before,
            row_number() OVER (PARTITION BY feature ORDER BY interval) - 1 AS number
        FROM feature_intervals
        WHERE study = getvariable('study') AND layer = getvariable('layer')
    )
    GROUP BY feature
)
FULL JOIN (
    SELECT feature, n_active, max_activation FROM feature_statistics WHERE study = getvariable('study') AND layer = getvariable('layer') AND n_active > 0
) USING (feature)
WHERE (
    counted = n_active
    AND abs(total_share - 1) <= 1e-6
    AND lowest = 0
    AND abs(highest - max_activation) <= 1e-6 * max_activation
    AND n_gaps = 0
) IS NOT TRUE;
