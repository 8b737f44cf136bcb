-- How well two models do each task.
WITH rows AS (
    SELECT study, task, loss, is_top1::INT AS is_top1, logit_diff
    FROM task_baseline
    WHERE study IN ($study, $other) AND variant = 'base' AND skipped IS NULL
    UNION ALL
    SELECT study, 'ioi', NULL, prefers_io::INT, logit_diff
    FROM ioi_baseline
    WHERE study IN ($study, $other)
)
SELECT
    task,
    count(*) FILTER (study = $study) AS n,
    count(*) FILTER (study = $other) AS other_n,
    avg(is_top1) FILTER (study = $study) AS share_right,
    avg(is_top1) FILTER (study = $other) AS other_share_right,
    avg(logit_diff) FILTER (study = $study) AS mean_logit_diff,
    avg(logit_diff) FILTER (study = $other) AS other_mean_logit_diff
FROM rows
GROUP BY task
ORDER BY task;
