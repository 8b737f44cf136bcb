-- Mean effects of the interventions of an experiment that no other picture shows.
WITH made AS (
    SELECT study, task, intervention, min(kind) AS kind
    FROM intervention_sets
    GROUP BY study, task, intervention
)
SELECT DISTINCT
    s.kind,
    e.part,
    s.metric,
    s.mean_clean,
    s.mean_effect,
    s.ci_low,
    s.ci_high,
    s.control_mean_effect,
    s.control_ci_low,
    s.control_ci_high,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
LEFT JOIN made USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND coalesce(made.kind, s.kind) NOT IN (
      'activation_patching', 'edge', 'sae_feature_ablation', 'sae_feature_path', 'sae_splice'
  )
  AND s.metric IN ('logit_diff', 'attn_score')
ORDER BY s.metric, s.kind, e.part, s.intervention;
