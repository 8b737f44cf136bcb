-- Counts and activations of the intervals sum to those of feature_proxies
SELECT * FROM (
    SELECT
        proxy,
        feature,
        any_value(p.n_active) AS n_active,
        sum(h.n_active) AS counted,
        any_value(p.n_active_true) AS n_active_true,
        sum(h.n_active_true) AS counted_true,
        any_value(p.activation_sum) AS activation_sum,
        sum(h.activation_sum) AS summed,
        any_value(p.activation_sum_true) AS activation_sum_true,
        sum(h.activation_sum_true) AS summed_true
    FROM feature_proxy_histogram AS h
    LEFT JOIN feature_proxies AS p USING (study, layer, proxy, feature)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    GROUP BY ALL
)
WHERE (
    n_active = counted
    AND n_active_true = counted_true
    AND abs(activation_sum - summed) <= 1e-6 * activation_sum
    AND abs(activation_sum_true - summed_true) <= 1e-6 * activation_sum
) IS NOT TRUE;
