-- How far edits move the residual stream, over prompts and edits: medians and outer quantiles.
SELECT
    e.part,
    r.scope,
    r.mode,
    r.is_control,
    quantile_cont(r.cosine, 0.05) AS cosine_05,
    quantile_cont(r.cosine, 0.5) AS cosine_50,
    quantile_cont(r.cosine, 0.95) AS cosine_95,
    quantile_cont(r.norm_ratio, 0.05) AS norm_ratio_05,
    quantile_cont(r.norm_ratio, 0.5) AS norm_ratio_50,
    quantile_cont(r.norm_ratio, 0.95) AS norm_ratio_95,
    count(*) AS n
FROM intervention_experiments AS e
JOIN intervention_results AS r USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND r.metric = 'kl'
  AND r.cosine IS NOT NULL
GROUP BY e.part, r.scope, r.mode, r.is_control
ORDER BY e.part, r.scope, r.mode, r.is_control;
