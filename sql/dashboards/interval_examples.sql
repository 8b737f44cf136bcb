SELECT interval, sample, rank, sequence, position, activation, token
FROM feature_interval_examples
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY interval DESC, sample DESC, rank;
