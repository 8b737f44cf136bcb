-- Parts by head sum to the pre-activation less its constant, and so do parts by class of sources
SELECT feature, interval, head IS NULL AS by_source, sum(part_sum) AS summed, max(total_sum) AS total
FROM feature_dfa_variance
WHERE study = getvariable('study') AND layer = getvariable('layer')
GROUP BY ALL
HAVING (
    abs(summed - total) <= (1e-4 + 8 * getvariable('model.rounding')) * sum(sqrt(n * part_sum_squares))
    AND abs(sum(part_total_product) - max(total_sum_squares))
        <= (1e-4 + 8 * getvariable('model.rounding')) * sum(sqrt(part_sum_squares * total_sum_squares))
) IS NOT TRUE;
