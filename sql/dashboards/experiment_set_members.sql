-- Edges of a set alone and all together: change of the logit difference over the prompts that have
-- all of them.
WITH made AS (
    SELECT DISTINCT e.study, e.task, e.intervention, e.part
    FROM intervention_experiments AS e
    SEMI JOIN intervention_sets AS s USING (study, task, intervention)
    WHERE e.study = $study AND e.task = $task AND e.experiment = $experiment
),
members AS (
    SELECT
        made.*,
        s.member_id,
        s.scope,
        s.side,
        'L' || s.upstream_layer || 'H' || s.upstream_head || ' > L' || s.layer || 'H' || s.head
        || ' ' || s.side AS edge
    FROM made
    JOIN intervention_sets AS s USING (study, task, intervention)
    WHERE s.kind = 'edge'
),
sizes AS (
    SELECT
        study,
        task,
        intervention,
        part,
        count(*) AS members,
        any_value(scope) AS scope,
        count(*) || ' edges together, ' || string_agg(DISTINCT side, ' and ' ORDER BY side) AS edge
    FROM members
    GROUP BY study, task, intervention, part
),
effects AS (
    SELECT study, task, intervention, prompt, patched - clean AS effect
    FROM intervention_results
    WHERE study = $study AND task = $task AND metric = 'logit_diff' AND patched IS NOT NULL
),
alone AS (
    SELECT m.*, e.prompt, e.effect
    FROM members AS m
    JOIN effects AS e
        ON m.study = e.study AND m.task = e.task AND m.member_id = e.intervention
),
together AS (
    SELECT sizes.*, e.prompt, e.effect
    FROM sizes
    JOIN effects AS e USING (study, task, intervention)
    SEMI JOIN (
        SELECT study, task, intervention, prompt, count(*) AS members
        FROM alone
        GROUP BY study, task, intervention, prompt
    ) AS whole USING (study, task, intervention, prompt, members)
),
every AS (
    SELECT part, intervention, scope, edge, members, true AS is_set, effect
    FROM together
    UNION ALL
    SELECT a.part, a.intervention, a.scope, a.edge, t.members, false, a.effect
    FROM alone AS a
    JOIN together AS t USING (study, task, intervention, part, prompt)
)
SELECT
    part,
    scope,
    edge,
    is_set,
    members,
    avg(effect) AS mean_effect,
    quantile_cont(effect, 0.1) AS tenth_percentile,
    quantile_cont(effect, 0.9) AS ninetieth_percentile,
    count(*) AS n,
    intervention
FROM every
GROUP BY ALL
ORDER BY part, members DESC, intervention, is_set, edge, scope;
