SELECT distance, avg(dfa) AS mean_dfa, count(*) AS n_examples
FROM feature_dfa_by_source
WHERE study = $study AND layer = $layer AND feature = $feature
GROUP BY distance
ORDER BY distance;
