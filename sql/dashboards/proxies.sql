SELECT
    proxy,
    specificity,
    specificity_low,
    specificity_high,
    mass_specificity,
    sensitivity,
    base_rate,
    lift
FROM feature_proxy_shares
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY proxy;
