-- Means and shares of covariance of all kinds of pairs sum to the score of the head and role
SELECT task, layer, head, carrier_layer, carrier_head, name_order, source_role, summed, mean_score, total_covariance
FROM (
    SELECT
        study, task, layer, head, carrier_layer, carrier_head, name_order, source_role,
        sum(mean) AS summed,
        sum(covariance_share) AS total_covariance,
        sum(n_part_pairs) AS counted
    FROM qk_carried_kinds
    WHERE study = getvariable('study')
    GROUP BY ALL
)
LEFT JOIN (
    SELECT DISTINCT study, task, layer, head, carrier_layer, carrier_head, name_order, source_role, mean_score, n_part_pairs
    FROM qk_carried_summary
) USING (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role)
WHERE (
    abs(summed - mean_score) <= (1e-3 + 8 * getvariable('model.rounding')) * (1 + abs(mean_score))
    AND coalesce(abs(total_covariance - 1) <= 1e-3 + 8 * getvariable('model.rounding'), total_covariance IS NULL)
    AND counted = n_part_pairs
) IS NOT TRUE;
