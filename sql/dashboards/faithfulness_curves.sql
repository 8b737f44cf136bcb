-- Faithfulness over the share of edges kept, by ranking, with the areas under the curves.
SELECT
    f.task,
    f.ranking,
    f.ranked_by,
    s.cpr,
    s.cmd,
    s.cpr_log,
    s.cmd_log,
    s.smallest_k_90,
    f.edge_fraction,
    f.n_edges,
    avg(f.n_connected) AS n_connected,
    avg(f.faithfulness) AS faithfulness,
    min(f.faithfulness) AS lowest,
    max(f.faithfulness) AS highest,
    count(*) AS n_seeds,
    max(f.n_prompts) AS n_prompts
FROM circuit_faithfulness AS f
LEFT JOIN (
    SELECT
        study, task, ranking, ranked_by, avg(cpr) AS cpr, avg(cmd) AS cmd, avg(cpr_log) AS cpr_log,
        avg(cmd_log) AS cmd_log, avg(smallest_k_90) AS smallest_k_90
    FROM circuit_faithfulness_summary
    GROUP BY study, task, ranking, ranked_by
) AS s USING (study, task, ranking, ranked_by)
WHERE f.study = $study
GROUP BY
    f.task, f.ranking, f.ranked_by, s.cpr, s.cmd, s.cpr_log, s.cmd_log, s.smallest_k_90, f.edge_fraction,
    f.n_edges
ORDER BY f.task, f.ranking, f.ranked_by, f.edge_fraction;
