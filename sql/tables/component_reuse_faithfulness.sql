-- formula: 2
CREATE TABLE component_reuse_faithfulness (
    study VARCHAR,
    heads_of VARCHAR,
    measured_on VARCHAR,
    mode VARCHAR,
    reference VARCHAR NOT NULL,
    fallback_share DOUBLE NOT NULL CHECK (fallback_share BETWEEN 0 AND 1),
    metric VARCHAR CHECK (metric IN ('loss', 'logit_diff')),
    top_share DOUBLE CHECK (top_share > 0 AND top_share <= 1),
    n_kept INTEGER NOT NULL CHECK (n_kept > 0),
    n BIGINT NOT NULL CHECK (n > 0),
    held_out BOOLEAN NOT NULL,
    mean_clean DOUBLE NOT NULL,
    mean_kept DOUBLE NOT NULL,
    mean_none_kept DOUBLE NOT NULL,
    faithfulness DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    random_faithfulness DOUBLE,
    random_sets INTEGER NOT NULL CHECK (random_sets >= 0),
    PRIMARY KEY (study, heads_of, measured_on, mode, metric, top_share),
    CHECK (ci_low <= ci_high)
);
COMMENT ON TABLE component_reuse_faithfulness IS 'How well a task is done with the top heads of a task alone, every other head mean-ablated together (column mode; MLPs kept): one row per pair of tasks, in both directions and with itself, and metric. A task whose own heads do it and another''s do not has a circuit of its own.';
COMMENT ON COLUMN component_reuse_faithfulness.study IS 'Study the row belongs to';
COMMENT ON COLUMN component_reuse_faithfulness.heads_of IS 'Task whose top heads are kept: those whose ablation (mode mean_leave_one_out) harms the same metric most on it';
COMMENT ON COLUMN component_reuse_faithfulness.measured_on IS 'Task whose prompts are run';
COMMENT ON COLUMN component_reuse_faithfulness.mode IS 'Ablation of the heads that are not kept: mean_leave_one_out, as in task_head_effects';
COMMENT ON COLUMN component_reuse_faithfulness.reference IS 'What the mean is over. own_cell: the other base prompts of the same cell, position by position. own_task: all positions from 1 on of the task''s other base prompts, the same at every position, where the cell has fewer than 4 prompts. own_cell_and_task: some prompts the one, some the other (fallback_share). A cell is a task, a template, a length and the positions of all roles. A prompt never takes part in its own mean';
COMMENT ON COLUMN component_reuse_faithfulness.fallback_share IS 'Share of these prompts whose mean is over own_task, their cell being too small';
COMMENT ON COLUMN component_reuse_faithfulness.metric IS 'loss or logit_diff, as in task_head_effects';
COMMENT ON COLUMN component_reuse_faithfulness.top_share IS 'Share of all heads that is kept';
COMMENT ON COLUMN component_reuse_faithfulness.n_kept IS 'Number of heads kept';
COMMENT ON COLUMN component_reuse_faithfulness.n IS 'Number of prompts';
COMMENT ON COLUMN component_reuse_faithfulness.held_out IS 'Whether these prompts took no part in ranking heads (those behind the first task_effects.prompts of the task); false where a task has too few, and its own heads look better than they are';
COMMENT ON COLUMN component_reuse_faithfulness.mean_clean IS 'Mean of the metric with all heads';
COMMENT ON COLUMN component_reuse_faithfulness.mean_kept IS 'Mean of the metric with the kept heads alone';
COMMENT ON COLUMN component_reuse_faithfulness.mean_none_kept IS 'Mean of the metric with every head mean-ablated';
COMMENT ON COLUMN component_reuse_faithfulness.faithfulness IS '(mean_kept - mean_none_kept) / (mean_clean - mean_none_kept): 1 as good as the whole model, 0 as bad as without heads; can lie outside. NULL where ablating all heads changes nothing';
COMMENT ON COLUMN component_reuse_faithfulness.ci_low IS 'Lower end of the 95% percentile bootstrap interval of faithfulness over prompts; NULL for one prompt';
COMMENT ON COLUMN component_reuse_faithfulness.ci_high IS 'Upper end of the 95% percentile bootstrap interval of faithfulness over prompts; NULL for one prompt';
COMMENT ON COLUMN component_reuse_faithfulness.random_faithfulness IS 'Mean faithfulness of random_sets random sets of n_kept heads on the same prompts';
COMMENT ON COLUMN component_reuse_faithfulness.random_sets IS 'Number of random head sets';
