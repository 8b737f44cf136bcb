-- Is the proxy true where its best feature is strongly active, and false only at weak activations?
WITH best AS (
    SELECT study, layer, proxy, feature
    FROM feature_proxy_shares
    WHERE study = coalesce(getvariable('study'), 'organism') AND n_active >= 20
    ORDER BY mass_specificity - base_rate DESC, n_active DESC
    LIMIT 1
)
SELECT
    proxy,
    layer,
    feature,
    interval,
    round(high, 2) AS up_to,
    round(specificity, 3) AS share_true,
    round(specificity_low, 3) AS low_95,
    round(specificity_high, 3) AS high_95,
    round(weight_true, 3) AS weight_true,
    round(weight_false, 3) AS weight_false
FROM best
JOIN feature_proxy_expected_value USING (study, layer, proxy, feature)
ORDER BY interval;
