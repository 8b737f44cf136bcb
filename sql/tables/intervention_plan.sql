-- formula: 1
CREATE TABLE intervention_plan (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    asked_by VARCHAR NOT NULL,
    intervention VARCHAR,
    decision VARCHAR NOT NULL CHECK (decision IN ('run', 'changed', 'left out')),
    reason VARCHAR,
    UNIQUE (study, task, asked_by, intervention),
    CHECK ((decision = 'run') = (reason IS NULL)),
    CHECK (intervention IS NOT NULL OR decision = 'left out')
);
COMMENT ON TABLE intervention_plan IS 'What became of every intervention that the study asks for: run, run in another form than it is named, or left out, and why. Everything is checked against the model, the prompts, the traced edges and the SAEs before anything runs. One row per setting that asks and intervention; an intervention that several published experiments need is run once.';
COMMENT ON COLUMN intervention_plan.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_plan.task IS 'ioi, or a task of task_prompts';
COMMENT ON COLUMN intervention_plan.asked_by IS 'Setting of the study that asks for it: interventions.head_ablations, interventions.edges, interventions.published and the experiment''s name, interventions.experiments and the number of the own experiment, from 0';
COMMENT ON COLUMN intervention_plan.intervention IS 'Identifier as in intervention_results; NULL: all of what the setting asks for';
COMMENT ON COLUMN intervention_plan.decision IS 'run; changed: run, though not as it is named (a key that heads share is edited for all of them); left out';
COMMENT ON COLUMN intervention_plan.reason IS 'What was changed, or why it was left out; NULL where it is run as it is named';
