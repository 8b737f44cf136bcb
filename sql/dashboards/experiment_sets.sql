-- Edits made together: their effect, and the sum of the effects that they have alone.
WITH parts AS (
    SELECT
        m.study,
        m.task,
        m.intervention,
        count(*) AS n_members,
        count(alone.mean_effect) AS n_measured,
        sum(alone.mean_effect) AS sum_of_singles,
        min(m.mode) AS mode,
        min(m.scope) AS scope,
        string_agg(
            coalesce(m.upstream_layer || '.' || m.upstream_head || ' > ', '')
            || m.layer || coalesce('.' || m.head, '')
            || coalesce(' ' || m.side, ''),
            ' & ' ORDER BY m.member
        ) AS members
    FROM intervention_sets AS m
    LEFT JOIN intervention_summary AS alone
        ON alone.study = m.study
        AND alone.task = m.task
        AND alone.intervention = m.member_id
        AND alone.metric = 'logit_diff'
    WHERE m.kind = 'edge'
    GROUP BY m.study, m.task, m.intervention
)
SELECT DISTINCT
    CASE
        WHEN s.intervention LIKE 'set:parallel:%' THEN 'parallel'
        WHEN s.intervention LIKE 'set:serial:%' THEN 'serial'
        ELSE 'other'
    END AS arrangement,
    parts.mode,
    parts.scope,
    parts.members,
    s.mean_clean,
    s.mean_effect,
    s.ci_low,
    s.ci_high,
    CASE WHEN parts.n_measured = parts.n_members THEN parts.sum_of_singles END AS sum_of_singles,
    s.n,
    s.intervention
FROM intervention_experiments AS e
JOIN intervention_summary AS s USING (study, task, intervention)
JOIN parts USING (study, task, intervention)
WHERE e.study = $study
  AND e.task = $task
  AND e.experiment = $experiment
  AND s.metric = 'logit_diff'
ORDER BY arrangement, parts.mode, parts.scope, parts.members;
