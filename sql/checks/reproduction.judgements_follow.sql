-- The judgement follows from the value, its bounds and the conditions; difference is ours - reference_value
SELECT reference_id, key, ours, reference_value, difference, tolerance, judgement
FROM reproduction
WHERE study = getvariable('study') AND (
    judgement = CASE
        WHEN ours IS NULL THEN 'missing'
        WHEN len(other_condition) > 0 THEN 'other_condition'
        WHEN divisor_share < 0.1 THEN 'unstable'
        WHEN abs(difference) <= tolerance THEN 'within'
        WHEN tolerance IS NOT NULL THEN 'outside'
        WHEN ours BETWEEN ci_low AND ci_high THEN 'within'
        WHEN ci_low IS NOT NULL THEN 'outside'
        ELSE 'no_bound'
    END
    AND (
        reference_kind = 'heads'
        OR difference IS NULL
        OR abs(ours - reference_value - difference) <= 1e-9 * (1 + abs(ours))
    )
) IS NOT TRUE;
