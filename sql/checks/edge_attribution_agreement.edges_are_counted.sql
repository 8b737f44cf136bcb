-- n_exact_edges is the number of edges with an exact effect
SELECT task, method, rule, n_exact_edges, counted
FROM edge_attribution_agreement
LEFT JOIN (
    SELECT study, task, method, rule, count(exact) AS counted FROM edge_attribution GROUP BY ALL
) USING (study, task, method, rule)
WHERE study = getvariable('study') AND (n_exact_edges = counted) IS NOT TRUE;
