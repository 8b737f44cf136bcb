-- How faithful are circuits of each size, edge source by edge source?
SELECT
    f.task,
    f.ranking,
    f.ranked_by,
    f.seed,
    list(round(f.faithfulness, 3) ORDER BY f.edge_fraction) AS faithfulness_from_small_to_large,
    list(f.n_connected ORDER BY f.edge_fraction) AS connected_edges,
    round(any_value(s.cpr), 3) AS cpr,
    round(any_value(s.cmd), 3) AS cmd,
    round(any_value(s.cmd_log), 3) AS cmd_log,
    any_value(s.smallest_k_90) AS smallest_k_90
FROM circuit_faithfulness AS f
JOIN circuit_faithfulness_summary AS s USING (study, task, ranking, ranked_by, seed)
WHERE f.study = coalesce(getvariable('study'), 'organism')
GROUP BY f.task, f.ranking, f.ranked_by, f.seed
ORDER BY f.task, cmd_log;
