-- Which heads does ablation show to matter for several tasks that the model can do, and what are their scores?
WITH able AS (
    SELECT study, task
    FROM task_baseline
    WHERE variant = 'base'
    GROUP BY ALL
    HAVING avg(is_top1::INTEGER) >= 0.5
),

harmful AS (
    SELECT
        e.study,
        e.layer,
        e.head,
        e.task,
        e.mean_effect,
        e.ci_high,
        rank() OVER (PARTITION BY e.study, e.task ORDER BY e.mean_effect) AS place
    FROM task_head_effects AS e
    JOIN able USING (study, task)
    WHERE e.mode = 'mean_leave_one_out' AND e.metric = 'logit_diff'
)

SELECT
    h.layer,
    h.head,
    count(*) AS tasks,
    string_agg(
        format('{} {:.2f} (place {})', h.task, h.mean_effect, h.place), ', ' ORDER BY h.mean_effect
    ) AS change_of_logit_diff,
    any_value(m.roles_of_head) AS roles
FROM harmful AS h
LEFT JOIN head_score_matrix AS m USING (study, layer, head)
WHERE h.study = coalesce(getvariable('study'), 'organism')
    AND h.ci_high < 0
    AND h.place <= 10
GROUP BY h.layer, h.head
ORDER BY tasks DESC, sum(h.mean_effect), h.layer, h.head
LIMIT 20;
