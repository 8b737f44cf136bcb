-- The same interventions in two studies, the largest differences of effect first.
SELECT
    task,
    intervention,
    metric,
    a.n AS n,
    b.n AS other_n,
    a.mean_effect AS mean_effect,
    b.mean_effect AS other_mean_effect,
    a.mean_effect - b.mean_effect AS difference,
    a.ci_low > b.ci_high OR b.ci_low > a.ci_high AS intervals_are_apart
FROM (FROM intervention_summary WHERE study = $study AND NOT is_control) AS a
JOIN (FROM intervention_summary WHERE study = $other AND NOT is_control) AS b
    USING (task, intervention, metric)
WHERE metric = 'logit_diff' AND a.mean_effect IS NOT NULL AND b.mean_effect IS NOT NULL
ORDER BY abs(difference) DESC, task, intervention
LIMIT 200;
