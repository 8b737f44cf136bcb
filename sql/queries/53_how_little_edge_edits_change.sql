-- How far do edits of edges, random ones and sets of them move the residual stream (FC24, Fig. 10-13)?
SELECT
    e.part,
    coalesce(r.scope, members.scope) AS scope,
    coalesce(r.mode, members.mode) AS mode,
    r.is_control AS random_slices,
    count(*) AS edits_and_prompts,
    round(quantile_cont(r.cosine, 0.05), 4) AS cosine_05,
    round(quantile_cont(r.cosine, 0.5), 4) AS cosine_50,
    round(quantile_cont(r.cosine, 0.95), 4) AS cosine_95,
    round(min(r.cosine), 4) AS smallest_cosine,
    round(quantile_cont(r.norm_ratio, 0.05), 4) AS norm_05,
    round(quantile_cont(r.norm_ratio, 0.5), 4) AS norm_50,
    round(quantile_cont(r.norm_ratio, 0.95), 4) AS norm_95
FROM (
    SELECT DISTINCT study, task, part, intervention
    FROM intervention_experiments
    WHERE experiment = 'fc24_magnitudes'
) AS e
INNER JOIN intervention_results AS r
    ON e.study = r.study AND e.task = r.task AND e.intervention = r.intervention
LEFT JOIN (
    SELECT study, task, intervention, any_value(scope) AS scope, any_value(mode) AS mode
    FROM intervention_sets
    GROUP BY study, task, intervention
) AS members
    ON e.study = members.study AND e.task = members.task AND e.intervention = members.intervention
WHERE e.study = coalesce(getvariable('study'), 'organism')
    AND r.metric = 'kl'
GROUP BY ALL
ORDER BY e.part, scope, random_slices, mode;
