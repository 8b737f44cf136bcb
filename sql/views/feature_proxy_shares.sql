CREATE VIEW feature_proxy_shares AS
SELECT
    study,
    layer,
    proxy,
    feature,
    n_active,
    n_true,
    n_active_true / nullif(n_active, 0) AS specificity,
    specificity_low,
    specificity_high,
    activation_sum_true / nullif(activation_sum, 0) AS mass_specificity,
    mass_specificity_low,
    mass_specificity_high,
    n_active_true / nullif(n_true, 0) AS sensitivity,
    sensitivity_low,
    sensitivity_high,
    n_true / nullif(n_tokens, 0) AS base_rate,
    (n_active_true / nullif(n_active, 0)) / nullif(n_true / nullif(n_tokens, 0), 0) AS lift
FROM feature_proxies;
COMMENT ON VIEW feature_proxy_shares IS 'One row per proxy and feature: specificity, sensitivity and what to compare them with, from the counts of feature_proxies.';
COMMENT ON COLUMN feature_proxy_shares.specificity IS 'Share of the tokens at which the feature is active at which the proxy is true, 0 to 1';
COMMENT ON COLUMN feature_proxy_shares.mass_specificity IS 'Share of the feature''s activation at tokens at which the proxy is true, 0 to 1: weighted by activation, as in the expected-value plot';
COMMENT ON COLUMN feature_proxy_shares.sensitivity IS 'Sensitivity: share of the tokens at which the proxy is true at which the feature is active, 0 to 1; NULL where the proxy is never true';
COMMENT ON COLUMN feature_proxy_shares.base_rate IS 'Share of all tokens at which the proxy is true: the specificity of a feature that knows nothing of it';
COMMENT ON COLUMN feature_proxy_shares.lift IS 'specificity / base_rate';
