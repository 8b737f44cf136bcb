-- Change of the logit difference when a feature or an SAE's error term, or its path into heads, is
-- ablated: all prompts, with bootstrap intervals; by order of names; by template of the prompt.
WITH templates AS (
    SELECT study, 'ioi' AS task, prompt, name_order, name_order || ' ' || template AS template
    FROM ioi_prompts
),
by_order AS (
    SELECT
        r.study,
        r.task,
        r.intervention,
        t.name_order,
        avg(r.patched - r.clean) AS effect,
        count(*) AS n
    FROM intervention_results AS r
    JOIN templates AS t USING (study, task, prompt)
    WHERE r.metric = 'logit_diff'
    GROUP BY r.study, r.task, r.intervention, t.name_order
),
by_template AS (
    SELECT r.study, r.task, r.intervention, t.template, avg(r.patched - r.clean) AS effect
    FROM intervention_results AS r
    JOIN templates AS t USING (study, task, prompt)
    WHERE r.metric = 'logit_diff'
    GROUP BY r.study, r.task, r.intervention, t.template
)
SELECT
    s.kind,
    s.layer,
    s.feature,
    s.position_role,
    s.receiver,
    s.receivers,
    s.via_mlp,
    s.mean_clean,
    s.mean_effect,
    s.ci_low,
    s.ci_high,
    list(DISTINCT {'name_order': o.name_order, 'effect': o.effect, 'n': o.n}) AS by_order,
    list(DISTINCT {'template': t.template, 'effect': t.effect}) AS by_template,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
LEFT JOIN by_order AS o USING (study, task, intervention)
LEFT JOIN by_template AS t USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND s.metric = 'logit_diff'
  AND (
      s.kind IN ('sae_feature_ablation', 'sae_feature_path', 'sae_error_path')
      OR (s.kind = 'sae_splice' AND s.position_role <> 'all')
  )
GROUP BY ALL
ORDER BY s.layer, s.feature, s.kind, s.receiver, s.via_mlp;
