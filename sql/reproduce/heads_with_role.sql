-- Heads with a role, by role
-- Roles of head_roles, and the classes of prefix_induction_heads. A role that no head has is an empty list.
-- statistic: heads whose scores pass thresholds
-- position: by role: the view head_score_definitions
-- prompts: this project's
-- rule: thresholds of head_role_conditions
-- run: model, bos, corpus
WITH found AS (
    SELECT role, layer, head FROM head_roles
    WHERE study = coalesce(getvariable('study'), 'organism')
    UNION ALL
    SELECT prefix_class || '_prefix_induction', layer, head FROM prefix_induction_heads
    WHERE study = coalesce(getvariable('study'), 'organism') AND prefix_class <> 'other'
),
measured AS (
    SELECT DISTINCT role FROM head_role_conditions
    JOIN head_score_tests USING (score)
    WHERE study = coalesce(getvariable('study'), 'organism')
    UNION ALL
    SELECT DISTINCT class || '_prefix_induction' FROM prefix_induction_heads
    CROSS JOIN (VALUES ('long'), ('short')) AS classes (class)
    WHERE study = coalesce(getvariable('study'), 'organism')
)
SELECT
    measured.role AS key,
    coalesce(
        list('L' || layer || 'H' || head ORDER BY layer, head) FILTER (layer IS NOT NULL), []
    ) AS heads
FROM measured
LEFT JOIN found USING (role)
GROUP BY measured.role
ORDER BY key;
