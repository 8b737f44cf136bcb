CREATE VIEW left_out AS
SELECT
    study,
    'prompts' AS analysis,
    task,
    NULL::VARCHAR AS asked_by,
    NULL::VARCHAR AS intervention,
    skipped AS reason
FROM task_baseline
WHERE skipped IS NOT NULL
UNION ALL
SELECT study, analysis, NULL, NULL, NULL, reason
FROM model_capabilities
WHERE NOT holds
UNION ALL
SELECT study, 'trace', task, 'tasks.traced', NULL, skipped
FROM trace_roots
WHERE skipped IS NOT NULL
UNION ALL
SELECT study, 'interventions', task, asked_by, intervention, reason
FROM intervention_plan
WHERE decision = 'left out';
COMMENT ON VIEW left_out IS 'What a study asks for, by default or itself, that its model cannot express or that has nothing to run on, and why: tasks without prompts, analyses that do not hold of the model, tasks without a trace, interventions. Tables about such tasks and analyses have no rows.';
COMMENT ON COLUMN left_out.study IS 'Study the row belongs to';
COMMENT ON COLUMN left_out.analysis IS 'prompts, trace, interventions, or an analysis of model_capabilities';
COMMENT ON COLUMN left_out.task IS 'ioi, or a task of task_prompts; NULL where it is about the model';
COMMENT ON COLUMN left_out.asked_by IS 'Setting of the study that asks for it; NULL for prompts and analyses, which several settings ask for';
COMMENT ON COLUMN left_out.intervention IS 'Identifier of an intervention; NULL: all of what the setting asks for';
COMMENT ON COLUMN left_out.reason IS 'Why it was left out';
