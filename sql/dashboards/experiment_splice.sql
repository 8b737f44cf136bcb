-- Logit difference and KL with SAEs spliced in, each against ablation of the same layers.
WITH made AS (
    SELECT
        study, task, intervention, min(kind) AS kind, count(*) AS n_layers,
        string_agg('L' || layer, ' + ' ORDER BY layer) AS layers, min(layer) AS first_layer
    FROM intervention_sets
    GROUP BY study, task, intervention
)
SELECT DISTINCT
    coalesce(made.n_layers, 1) AS n_layers,
    coalesce(made.first_layer, s.layer) AS first_layer,
    coalesce(made.layers, 'L' || s.layer) AS layers,
    s.metric,
    s.ablated_run,
    s.mean_clean,
    s.mean_ablated,
    s.mean_patched,
    s.mean_effect,
    s.ci_low,
    s.ci_high,
    s.recovered_from_ablated,
    s.recovered_from_ablated_ci_low,
    s.recovered_from_ablated_ci_high,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
LEFT JOIN made USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND s.metric IN ('logit_diff', 'kl')
  AND coalesce(made.kind, s.kind) = 'sae_splice'
ORDER BY n_layers, first_layer, layers, s.metric, s.ablated_run;
