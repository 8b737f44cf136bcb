-- The experiments of the study: their parts, how those were chosen, and kinds of interventions.
WITH made AS (
    SELECT study, task, intervention, min(kind) AS kind
    FROM intervention_sets
    GROUP BY study, task, intervention
)
SELECT
    e.task,
    e.experiment,
    e.paper,
    e.question,
    e.part,
    e.chosen_by,
    e.intervention,
    coalesce(made.kind, s.kind) AS kind,
    made.kind IS NOT NULL AS is_set,
    max(s.n) AS n,
    count(DISTINCT s.metric) AS n_metrics
FROM intervention_experiments AS e
LEFT JOIN intervention_summary AS s USING (study, task, intervention)
LEFT JOIN made USING (study, task, intervention)
WHERE e.study = $study
GROUP BY ALL
ORDER BY e.task, e.experiment, e.part, e.intervention;
