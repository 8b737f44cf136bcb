-- Ranks of an interval's sample are 0 .. n - 1; of the strongest tokens none is stronger than the
-- one before
SELECT * FROM (
    SELECT
        feature, interval, sample, rank, activation,
        row_number() OVER ranked - 1 AS number,
        lag(activation) OVER ranked AS stronger
    FROM feature_interval_examples
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    WINDOW ranked AS (PARTITION BY feature, interval, sample ORDER BY rank)
)
WHERE (
    rank = number AND (sample = 'random' OR activation <= coalesce(stronger, activation))
) IS NOT TRUE;
