-- within says whether |difference| is at most the tolerance, difference is ours - reference_value
SELECT reference_id, key, ours, reference_value, difference, tolerance, within
FROM reproduction
WHERE study = getvariable('study') AND tolerance IS NOT NULL AND (
    within = coalesce(abs(difference) <= tolerance, false)
    AND (
        reference_kind = 'heads'
        OR difference IS NULL
        OR abs(ours - reference_value - difference) <= 1e-9 * (1 + abs(ours))
    )
) IS NOT TRUE;
