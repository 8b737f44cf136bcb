SELECT rank, alive_rank, feature, attribution, is_alive, density, fires_on, promotes
FROM head_features
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY rank;
