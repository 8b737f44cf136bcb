SELECT interval, low, high, n_active, share, example_sequences, example_positions
FROM feature_intervals
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY interval DESC;
