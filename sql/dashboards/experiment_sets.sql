-- Edits made together: their effect, and the sum of the effects that they have alone, on the
-- prompts that have all of them.
WITH made AS (
    SELECT
        study,
        task,
        intervention,
        string_agg(
            coalesce('L' || upstream_layer || 'H' || upstream_head || ' > ', '')
            || coalesce('L' || layer || coalesce('H' || head, ''), '')
            || coalesce(' ' || side, ''),
            ' & ' ORDER BY member
        ) AS edits
    FROM intervention_sets
    GROUP BY study, task, intervention
),
parts AS (
    SELECT study, task, intervention, min(part) AS part
    FROM intervention_experiments
    WHERE experiment = $experiment
    GROUP BY study, task, intervention
)
SELECT
    a.metric,
    a.scope,
    a.mode,
    parts.part,
    made.edits,
    a.members,
    a.joint_effect,
    a.sum_of_members,
    a.interaction,
    a.interaction_se,
    a.relative_deviation,
    a.n,
    a.intervention
FROM parts
JOIN intervention_set_additivity AS a USING (study, task, intervention)
JOIN made USING (study, task, intervention)
WHERE a.study = $study
  AND a.task = $task
  AND a.metric IN ('logit_diff', 'attn_score')
ORDER BY a.metric DESC, a.scope, a.mode, parts.part, made.edits;
