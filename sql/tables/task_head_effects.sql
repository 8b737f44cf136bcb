-- formula: 2
-- rows: one per head for each task, mode, metric
-- below: layer < n_layers, head < n_heads
CREATE TABLE task_head_effects (
    study VARCHAR,
    task VARCHAR,
    mode VARCHAR CHECK (mode IN ('zero', 'mean_leave_one_out', 'uniform_attention')),
    reference VARCHAR NOT NULL,
    fallback_share DOUBLE CHECK (fallback_share BETWEEN 0 AND 1),
    position_role VARCHAR NOT NULL CHECK (position_role IN ('all_but_bos', 'END')),
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    metric VARCHAR CHECK (metric IN ('loss', 'logit_diff', 'kl')),
    n BIGINT NOT NULL CHECK (n > 0),
    mean_clean DOUBLE NOT NULL,
    mean_ablated DOUBLE NOT NULL,
    mean_effect DOUBLE NOT NULL,
    sd_effect DOUBLE CHECK (sd_effect >= 0),
    ci_low DOUBLE,
    ci_high DOUBLE,
    null_n BIGINT CHECK (null_n >= 0),
    null_mean_kl DOUBLE CHECK (null_mean_kl >= -1e-6),
    null_ratio DOUBLE,
    PRIMARY KEY (study, task, mode, layer, head, metric),
    CHECK (ci_low <= ci_high),
    CHECK (abs(mean_ablated - mean_clean - mean_effect) <= 1e-6 * (1 + abs(mean_ablated) + abs(mean_clean))),
    CHECK (metric <> 'kl' OR mean_clean = 0),
    CHECK (metric = 'kl' OR null_mean_kl IS NULL),
    CHECK (mode = 'mean_leave_one_out' OR fallback_share IS NULL)
);
COMMENT ON TABLE task_head_effects IS 'Every head ablated alone on base prompts of every task of task_effects.tasks (Kissane et al. 2024, arXiv 2406.17759, Fig. 3): one row per task, mode, head and metric. z of the head, of the processed weights, is replaced at every position from 1 on, or at END alone (position_role); everything behind it is computed anew. Position 0 (BOS) attends to itself alone and is the same in all prompts.';
COMMENT ON COLUMN task_head_effects.study IS 'Study the row belongs to';
COMMENT ON COLUMN task_head_effects.task IS 'Task, as in task_prompts, or ioi';
COMMENT ON COLUMN task_head_effects.mode IS 'What replaces z. zero: 0 (b_V is folded into b_O and stays). mean_leave_one_out: its mean over the other base prompts of the task, as `reference` says; not the mean over counterfactual prompts of intervention_results (mean_counterfactual). uniform_attention: z under equal attention to every position up to its own, as for a query of 0';
COMMENT ON COLUMN task_head_effects.reference IS 'What the mean is over. own_cell: the other base prompts of the same cell, position by position. own_task: all positions from 1 on of the task''s other base prompts, the same at every position, where the cell has fewer than 4 prompts. own_cell_and_task: some prompts the one, some the other (fallback_share). A cell is a task, a template, a length and the positions of all roles. A prompt never takes part in its own mean. none: zero and uniform_attention use no other prompt';
COMMENT ON COLUMN task_head_effects.fallback_share IS 'Share of these prompts whose mean is over own_task, their cell being too small; NULL for modes other than mean_leave_one_out';
COMMENT ON COLUMN task_head_effects.position_role IS 'all_but_bos: z is replaced at every position from 1 on. END: at END alone. (all, in intervention_results, takes BOS along, whose zero ablation changes what others read there)';
COMMENT ON COLUMN task_head_effects.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN task_head_effects.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN task_head_effects.metric IS 'loss: -log of the probability of the answers, in nats. logit_diff: mean logit of the answers - mean logit of the wrong tokens, over the prompts that have wrong tokens. kl: KL(clean || ablated) over the next token, in nats. All at END, where the first token of the answer is due. A task without answers has kl alone';
COMMENT ON COLUMN task_head_effects.n IS 'Number of prompts';
COMMENT ON COLUMN task_head_effects.mean_clean IS 'Mean of the metric without ablation (processed weights); 0 for kl';
COMMENT ON COLUMN task_head_effects.mean_ablated IS 'Mean of the metric with the head ablated';
COMMENT ON COLUMN task_head_effects.mean_effect IS 'mean_ablated - mean_clean: positive loss and negative logit_diff mean that the model got worse at the task';
COMMENT ON COLUMN task_head_effects.sd_effect IS 'Standard deviation of the effect over prompts (n - 1); NULL for one prompt';
COMMENT ON COLUMN task_head_effects.ci_low IS 'Lower end of the 95% percentile bootstrap interval of mean_effect over prompts; NULL for one prompt';
COMMENT ON COLUMN task_head_effects.ci_high IS 'Upper end of the 95% percentile bootstrap interval of mean_effect over prompts; NULL for one prompt';
COMMENT ON COLUMN task_head_effects.null_n IS 'Number of random prompts; kl only';
COMMENT ON COLUMN task_head_effects.null_mean_kl IS 'Mean kl of the same head and mode on prompts of BOS and random tokens, whose lengths are four quantiles of the tasks'' lengths, mean_leave_one_out with their own means; kl only. A head that shapes the output whatever the text has a large one';
COMMENT ON COLUMN task_head_effects.null_ratio IS 'mean_effect / null_mean: how much more the head matters on the task than on random tokens; kl only, NULL where null_mean is 0';
