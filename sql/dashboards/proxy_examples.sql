SELECT proxy, error_kind, n_errors, sequence, position, activation, text
FROM feature_proxy_examples
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY proxy, error_kind, rank;
