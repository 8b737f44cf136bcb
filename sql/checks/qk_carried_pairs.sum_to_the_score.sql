-- The pairs of a head, carrier, order of names and role, rest included, sum to the score of the model's run, and their
-- shares of covariance to 1
SELECT
    task, layer, head, carrier_layer, carrier_head, name_order, source_role,
    sum(mean) AS summed,
    max(mean_score) AS score,
    sum(covariance_share) AS total_covariance,
    max(identity_error) AS largest_error
FROM qk_carried_pairs
WHERE study = getvariable('study')
GROUP BY ALL
HAVING (
    abs(summed - score) <= (1e-3 + 8 * getvariable('model.rounding')) * (1 + abs(score))
    AND largest_error <= (1e-3 + 8 * getvariable('model.rounding')) * (1 + abs(score))
    AND coalesce(abs(total_covariance - 1) <= 1e-3 + 8 * getvariable('model.rounding'), total_covariance IS NULL)
) IS NOT TRUE;
