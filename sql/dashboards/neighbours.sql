SELECT
    n.measure,
    n.rank,
    n.neighbour,
    n.similarity,
    n.n_coactive,
    o.density,
    o.top_head,
    o.promoted[1] AS top_token
FROM feature_neighbours AS n
LEFT JOIN feature_overview AS o
    ON o.study = n.study AND o.layer = n.layer AND o.feature = n.neighbour
WHERE n.study = $study AND n.layer = $layer AND n.feature = $feature
ORDER BY n.measure, n.rank;
