-- value is x / n where x is given, within its interval, and meets_threshold is what value and
-- threshold say
SELECT feature, family, measure, value, x, n, ci_low, ci_high, threshold, meets_threshold
FROM feature_families
WHERE study = getvariable('study') AND layer = getvariable('layer') AND NOT (
    (x IS NULL OR value IS NULL OR coalesce(abs(value * n - x) <= 1e-6 * n, false))
    AND (ci_low IS NULL OR coalesce(value BETWEEN ci_low - 1e-9 AND ci_high + 1e-9, false))
    AND (
        meets_threshold IS NULL
        OR meets_threshold = CASE
            WHEN measure = 'negative_share' OR starts_with(measure, 'induction_per_')
            THEN value > threshold
            ELSE value >= threshold
        END
    )
);
