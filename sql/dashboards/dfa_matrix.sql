SELECT
    rank,
    head,
    unnest(range(position + 1)) AS source,
    unnest(dfa_by_source) AS dfa
FROM feature_dfa_matrix
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY rank, head, source;
