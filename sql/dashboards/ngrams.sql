SELECT n, rank, text, n_active, n_occurrences, share, rate, mean_activation
FROM feature_ngrams
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY n, rank;
