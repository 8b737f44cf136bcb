-- formula: 3
-- references: intervention_results (study, task, intervention)
CREATE TABLE intervention_experiments (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    experiment VARCHAR NOT NULL,
    paper VARCHAR NOT NULL,
    question VARCHAR NOT NULL,
    intervention VARCHAR,
    part VARCHAR,
    chosen_by VARCHAR NOT NULL,
    UNIQUE (study, task, experiment, part, intervention),
    CHECK ((part IS NULL) = (intervention IS NULL))
);
COMMENT ON TABLE intervention_experiments IS 'Which interventions of intervention_results belong to which published experiment. One row per experiment, part and intervention; an intervention that several experiments need was run once. Heads, edges, layers and features are chosen from this study''s own scores, traces and attributions; published indices serve models of the published shape alone.';
COMMENT ON COLUMN intervention_experiments.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_experiments.task IS 'Task on whose prompts it was run: ioi';
COMMENT ON COLUMN intervention_experiments.experiment IS 'Name of the experiment, as in interventions.published of a study';
COMMENT ON COLUMN intervention_experiments.paper IS 'Paper and figures or tables: K24 is Kissane et al. 2024 (arXiv 2406.17759), FC24 Franco & Crovella 2024 (arXiv 2410.00340)';
COMMENT ON COLUMN intervention_experiments.question IS 'What the experiment answers';
COMMENT ON COLUMN intervention_experiments.intervention IS 'Identifier as in intervention_results; NULL: nothing could be run, chosen_by says why';
COMMENT ON COLUMN intervention_experiments.part IS 'What is compared within the experiment: layers, a variant, an edge, a feature; NULL where nothing could be run';
COMMENT ON COLUMN intervention_experiments.chosen_by IS 'Why this layer, head, edge or feature; where no head has a role, by which score others stand in for it';
