-- How much of the variance of a name mover's scores do features carried from S2 make, by order of names, and how much the error terms (K24, Fig. 18)?
WITH shares AS (
    SELECT
        study, task, layer, head, carrier_layer, carrier_head, name_order, source_role,
        sum(covariance_share) FILTER (WHERE query_kind = 'feature') AS carried_features,
        sum(covariance_share) FILTER (WHERE query_kind <> 'not_carried') AS carried,
        sum(covariance_share) FILTER (
            WHERE query_kind <> 'not_carried'
                AND (query_kind = 'sae_error' OR key_kind IN ('sae_error', 'residual_error'))
        ) AS carried_errors
    FROM qk_carried_kinds
    GROUP BY ALL
),
first AS (
    SELECT study, task, layer, head, carrier_layer, carrier_head, name_order, source_role,
        arg_min('L' || query_layer || ' #' || query_feature, rank) AS first_feature,
        arg_min(mean, rank) AS its_mean
    FROM qk_carried_pairs
    WHERE query_kind = 'feature'
    GROUP BY ALL
)
SELECT
    'L' || layer || 'H' || head AS head,
    'L' || carrier_layer || 'H' || carrier_head AS carrier,
    name_order,
    source_role,
    s.n,
    round(s.mean_score, 3) AS mean_score,
    round(carried, 3) AS variance_carried,
    round(carried_features, 3) AS variance_of_features,
    round(carried_errors, 3) AS variance_of_errors,
    first_feature,
    round(its_mean, 3) AS mean_of_its_largest_pair
FROM (
    SELECT DISTINCT study, task, layer, head, carrier_layer, carrier_head, name_order, source_role, n, mean_score
    FROM qk_carried_summary
) AS s
JOIN shares USING (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role)
LEFT JOIN first USING (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role)
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY s.layer, s.head, carrier_layer, carrier_head, source_role, name_order;
