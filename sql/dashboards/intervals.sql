SELECT interval, low, high, n_active, active_share
FROM feature_intervals
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY interval DESC;
