-- Logit difference with activations of another prompt, and the share of it that is left.
WITH made AS (
    SELECT
        study, task, intervention, min(kind) AS kind, min(mode) AS mode, min(site) AS site,
        array_to_string(
            list_transform(list_sort(list(DISTINCT layer)), lambda one : 'L' || one), ' + '
        ) AS layers,
        min(position_role) AS position_role, min(source_variant) AS source_variant
    FROM intervention_sets
    GROUP BY study, task, intervention
)
SELECT DISTINCT
    coalesce(made.layers, 'L' || s.layer || coalesce('H' || s.head, '')) AS layers,
    coalesce(made.site, s.site) AS site,
    coalesce(made.position_role, s.position_role) AS position_role,
    coalesce(made.mode, s.mode) AS mode,
    coalesce(made.source_variant, s.source_variant) AS source_variant,
    s.ablated_run,
    s.mean_clean,
    s.mean_corrupt,
    s.mean_ablated,
    s.mean_patched,
    s.recovered,
    s.recovered_ci_low,
    s.recovered_ci_high,
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
  AND s.metric = 'logit_diff'
  AND coalesce(made.kind, s.kind) = 'activation_patching'
ORDER BY layers, position_role, source_variant, ablated_run;
