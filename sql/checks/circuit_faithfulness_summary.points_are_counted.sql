-- Every curve has as many points as its summary says
SELECT task, ranking, ranked_by, seed, n_points, counted
FROM circuit_faithfulness_summary
LEFT JOIN (
    SELECT study, task, ranking, ranked_by, seed, count(*) AS counted
    FROM circuit_faithfulness
    GROUP BY ALL
) USING (study, task, ranking, ranked_by, seed)
WHERE study = getvariable('study') AND (n_points = counted) IS NOT TRUE;
