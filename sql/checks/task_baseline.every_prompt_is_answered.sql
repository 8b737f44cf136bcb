-- Every prompt of task_prompts and every base prompt of ioi_prompts has its row
SELECT task, prompt
FROM (
    SELECT task, prompt FROM task_prompts WHERE study = getvariable('study')
    UNION ALL
    SELECT 'ioi', prompt FROM ioi_prompts WHERE study = getvariable('study') AND variant = 'base'
)
ANTI JOIN (SELECT task, prompt FROM task_baseline WHERE study = getvariable('study')) USING (task, prompt);
