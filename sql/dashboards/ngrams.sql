SELECT ngram_size, rank, text, n_active, n_occurrences, active_share, rate, mean_activation
FROM feature_ngrams
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY ngram_size, rank;
