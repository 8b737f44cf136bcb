-- What does each edge of a set do alone, and all of them together (FC24, Fig. 17-28)?
SELECT
    e.part,
    s.scope,
    'L' || s.upstream_layer || 'H' || s.upstream_head || ' > L' || s.layer || 'H' || s.head AS edge,
    s.side,
    alone.n AS prompts,
    round(alone.mean_effect, 4) AS alone,
    round(whole.mean_effect, 4) AS all_together,
    round(whole.ci_low, 4) AS low,
    round(whole.ci_high, 4) AS high
FROM intervention_experiments AS e
INNER JOIN intervention_sets AS s
    ON e.study = s.study AND e.task = s.task AND e.intervention = s.intervention
INNER JOIN intervention_summary AS alone
    ON s.study = alone.study AND s.task = alone.task AND s.member_id = alone.intervention
INNER JOIN intervention_summary AS whole
    ON s.study = whole.study AND s.task = whole.task AND s.intervention = whole.intervention
    AND alone.metric = whole.metric
WHERE e.study = coalesce(getvariable('study'), 'organism')
    AND e.experiment IN ('fc24_parallel_sets', 'fc24_serial_sets')
    AND whole.metric = 'logit_diff'
ORDER BY abs(whole.mean_effect) DESC, e.part, s.scope, s.intervention, s.member;
