SELECT rank, alive_rank, feature, attribution, is_alive, density, frequent_tokens, promoted_tokens
FROM head_features
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY rank;
