-- How far edits move the residual stream: mean over prompts for each edge and edit.
SELECT
    e.part,
    coalesce(s.scope, 'sets') AS scope,
    coalesce(s.mode, 'together') AS mode,
    s.mean_cosine,
    s.mean_norm_ratio,
    'L' || s.upstream_layer || 'H' || s.upstream_head || ' > ' || 'L' || s.layer || 'H' || s.head AS edge,
    s.side,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND s.metric = 'logit_diff'
  AND s.kind IN ('edge', 'set')
  AND s.mean_cosine IS NOT NULL
GROUP BY ALL
ORDER BY scope, mode, edge, s.side, s.intervention;
