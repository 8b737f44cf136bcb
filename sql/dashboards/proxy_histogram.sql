SELECT proxy, low, high, n_active, n_active_true, activation_sum, activation_sum_true
FROM feature_proxy_histogram
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY proxy, interval;
