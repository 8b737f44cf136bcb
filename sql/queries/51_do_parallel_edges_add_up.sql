-- Do edges into one head, or out of one, add up when they are ablated together (FC24, Fig. 17-28)?
SELECT
    e.part,
    a.scope,
    a.metric,
    a.members,
    a.n,
    round(a.joint_effect, 4) AS together,
    round(a.sum_of_members, 4) AS sum_of_single_effects,
    round(a.interaction, 4) AS interaction,
    round(a.interaction - 1.96 * a.interaction_se, 4) AS low,
    round(a.interaction + 1.96 * a.interaction_se, 4) AS high,
    round(a.additivity_ratio, 2) AS together_over_sum,
    round(a.relative_deviation, 3) AS relative_deviation,
    e.chosen_by
FROM intervention_experiments AS e
INNER JOIN intervention_set_additivity AS a
    ON e.study = a.study AND e.task = a.task AND e.intervention = a.intervention
WHERE e.study = coalesce(getvariable('study'), 'organism')
    AND e.experiment = 'fc24_parallel_sets'
    AND a.metric IN ('logit_diff', 'attn_score')
ORDER BY a.metric DESC, abs(a.joint_effect) DESC, e.part, a.scope;
