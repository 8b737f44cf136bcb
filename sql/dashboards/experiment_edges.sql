-- Change of the logit difference when an edge is ablated or boosted, beside random slices.
SELECT DISTINCT
    'L' || s.upstream_layer || 'H' || s.upstream_head AS upstream,
    'L' || s.layer || 'H' || s.head AS downstream,
    s.destination_role || ' <- ' || s.source_role AS pair,
    s.side,
    s.receiver,
    s.scope,
    s.mode,
    s.mean_clean,
    s.mean_effect,
    s.ci_low,
    s.ci_high,
    s.control_mean_effect,
    s.control_ci_low,
    s.control_ci_high,
    s.mean_n_slices,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND s.metric = 'logit_diff'
  AND s.kind = 'edge'
ORDER BY downstream, upstream, pair, s.side, s.receiver, s.scope, s.mode;
