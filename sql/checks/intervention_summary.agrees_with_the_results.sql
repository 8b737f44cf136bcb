-- n and mean_effect are those of the intervention's prompts in intervention_results; every
-- intervention that is no control has its rows
SELECT task, intervention, metric, n, counted, mean_effect, averaged
FROM (
    SELECT * FROM intervention_summary WHERE study = getvariable('study')
)
FULL JOIN (
    SELECT task, intervention, metric, count(*) AS counted, avg(patched - clean) AS averaged
    FROM intervention_results
    WHERE study = getvariable('study') AND clean IS NOT NULL AND patched IS NOT NULL AND NOT coalesce(is_control, false)
    GROUP BY ALL
) USING (task, intervention, metric)
WHERE (n = counted AND abs(mean_effect - averaged) <= 1e-6 * (1 + abs(averaged))) IS NOT TRUE;
