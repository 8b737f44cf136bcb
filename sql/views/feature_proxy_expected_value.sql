CREATE VIEW feature_proxy_expected_value AS
SELECT
    study,
    layer,
    proxy,
    feature,
    interval,
    low,
    high,
    n_active_true / nullif(n_active, 0) AS specificity,
    specificity_low,
    specificity_high,
    activation_sum_true / nullif(sum(activation_sum) OVER whole, 0) AS weight_true,
    (activation_sum - activation_sum_true) / nullif(sum(activation_sum) OVER whole, 0) AS weight_false,
    activation_sum_true / nullif(sum(activation_sum_true) OVER whole, 0) AS weight_true_separate,
    (activation_sum - activation_sum_true)
    / nullif(sum(activation_sum - activation_sum_true) OVER whole, 0) AS weight_false_separate
FROM feature_proxy_histogram
WINDOW whole AS (PARTITION BY study, layer, proxy, feature);
COMMENT ON VIEW feature_proxy_expected_value IS 'One row per proxy, feature and activation interval: the bars of the specificity and expected-value plots (K24 section 3.3).';
COMMENT ON COLUMN feature_proxy_expected_value.specificity IS 'Share of the interval''s tokens at which the proxy is true; NULL in an empty interval';
COMMENT ON COLUMN feature_proxy_expected_value.weight_true IS 'Share of the feature''s whole activation that lies in this interval at tokens at which the proxy is true. Normalised jointly: weight_true and weight_false sum to 1 over the intervals';
COMMENT ON COLUMN feature_proxy_expected_value.weight_false IS 'The same where the proxy is false';
COMMENT ON COLUMN feature_proxy_expected_value.weight_true_separate IS 'The same divided by the activation where the proxy is true alone, so that it sums to 1 by itself: what the authors'' code plots. It hides how rare a class is; use weight_true';
COMMENT ON COLUMN feature_proxy_expected_value.weight_false_separate IS 'Counterpart for tokens at which the proxy is false';
