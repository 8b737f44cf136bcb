CREATE VIEW intervention_set_additivity AS
WITH sizes AS (
    SELECT study, task, intervention, count(*) AS members, any_value(mode) AS mode,
        any_value(scope) AS scope
    FROM intervention_sets
    GROUP BY study, task, intervention
),
watched AS (
    SELECT DISTINCT study, task, intervention, watched
    FROM intervention_results
    WHERE watched IS NOT NULL
),
alone AS (
    SELECT
        s.study,
        s.task,
        s.intervention,
        r.prompt,
        r.metric,
        sum(r.patched - r.clean) AS effect,
        count(*) AS members
    FROM intervention_sets AS s
    INNER JOIN intervention_results AS r
        ON s.study = r.study AND s.task = r.task AND s.member_id = r.intervention
    LEFT JOIN watched AS w
        ON s.study = w.study AND s.task = w.task AND s.intervention = w.intervention
    WHERE r.patched IS NOT NULL
        -- Scores of one pair add up, those of different pairs do not.
        AND (
            r.metric <> 'attn_score'
            OR w.watched = coalesce(
                r.watched,
                'L' || r.layer || 'H' || r.head || ':' || r.destination_role || '<-'
                || r.source_role
            )
        )
    GROUP BY s.study, s.task, s.intervention, r.prompt, r.metric
),
together AS (
    SELECT
        r.study,
        r.task,
        r.intervention,
        r.metric,
        sizes.members,
        sizes.mode,
        sizes.scope,
        r.patched - r.clean AS effect,
        alone.effect AS sum_of_members
    FROM intervention_results AS r
    INNER JOIN sizes
        ON r.study = sizes.study AND r.task = sizes.task AND r.intervention = sizes.intervention
    INNER JOIN alone
        ON r.study = alone.study AND r.task = alone.task AND r.intervention = alone.intervention
        AND r.prompt = alone.prompt AND r.metric = alone.metric AND sizes.members = alone.members
)
SELECT
    study,
    task,
    intervention,
    metric,
    any_value(mode) AS mode,
    any_value(scope) AS scope,
    any_value(members) AS members,
    count(*) AS n,
    avg(effect) AS joint_effect,
    avg(sum_of_members) AS sum_of_members,
    avg(effect - sum_of_members) AS interaction,
    stddev_samp(effect - sum_of_members) / sqrt(count(*)) AS interaction_se,
    joint_effect / nullif(sum(sum_of_members) / count(*), 0) AS additivity_ratio,
    sqrt(avg((effect - sum_of_members) ** 2) / nullif(avg(effect ** 2), 0)) AS relative_deviation
FROM together
GROUP BY study, task, intervention, metric;
COMMENT ON VIEW intervention_set_additivity IS 'One row per set and metric: the effect of edits made together beside the sum of what they do alone, on the prompts that have all of them (Franco & Crovella 2024, Fig. 17-28). Sets whose members were not all run alone have no row, and for attn_score sets whose members read other pairs than the one that is watched.';
COMMENT ON COLUMN intervention_set_additivity.mode IS 'Mode of the members';
COMMENT ON COLUMN intervention_set_additivity.scope IS 'Scope of the members, for edges';
COMMENT ON COLUMN intervention_set_additivity.members IS 'Number of edits in the set';
COMMENT ON COLUMN intervention_set_additivity.n IS 'Prompts in which the set and each member alone were run';
COMMENT ON COLUMN intervention_set_additivity.joint_effect IS 'Mean of patched - clean when all members are made together';
COMMENT ON COLUMN intervention_set_additivity.sum_of_members IS 'Mean of the sum of patched - clean of the members alone';
COMMENT ON COLUMN intervention_set_additivity.interaction IS 'joint_effect - sum_of_members: 0 where effects add up; of the sign of the effects where each edit makes the others stronger';
COMMENT ON COLUMN intervention_set_additivity.interaction_se IS 'Its standard error over prompts; NULL for one prompt';
COMMENT ON COLUMN intervention_set_additivity.additivity_ratio IS 'joint_effect / sum_of_members: 1 where effects add up';
COMMENT ON COLUMN intervention_set_additivity.relative_deviation IS 'Root mean square over prompts of joint effect - sum, over that of the joint effect: 0 where effects add up prompt by prompt';
