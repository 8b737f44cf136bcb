-- formula: 3
CREATE TABLE component_reuse (
    study VARCHAR,
    task_a VARCHAR,
    task_b VARCHAR,
    mode VARCHAR,
    reference VARCHAR NOT NULL,
    metric VARCHAR CHECK (metric IN ('loss', 'logit_diff')),
    head_ranking VARCHAR CHECK (head_ranking IN ('harm', 'absolute')),
    top_share DOUBLE CHECK (top_share > 0 AND top_share <= 1),
    n_model_heads INTEGER NOT NULL CHECK (n_model_heads > 0),
    n_top_heads INTEGER NOT NULL CHECK (n_top_heads > 0),
    n_shared INTEGER NOT NULL CHECK (n_shared >= 0),
    expected_shared DOUBLE NOT NULL CHECK (expected_shared >= 0),
    p_value DOUBLE NOT NULL CHECK (p_value BETWEEN 0 AND 1.000001),
    jaccard DOUBLE NOT NULL CHECK (jaccard BETWEEN 0 AND 1.000001),
    expected_jaccard DOUBLE NOT NULL CHECK (expected_jaccard BETWEEN 0 AND 1.000001),
    rank_correlation DOUBLE CHECK (rank_correlation BETWEEN -1.000001 AND 1.000001),
    shared_heads VARCHAR[] NOT NULL,
    PRIMARY KEY (study, task_a, task_b, mode, metric, head_ranking, top_share),
    CHECK (task_a <> task_b),
    CHECK (n_shared <= n_top_heads AND n_top_heads <= n_model_heads),
    CHECK (n_shared = len(shared_heads))
);
COMMENT ON TABLE component_reuse IS 'Do two tasks depend on the same heads? Overlap of their top heads by ablation effect (task_head_effects), one row per pair of tasks, mode, metric, ranking and size of the top set, beside what random sets of that size give. Merullo et al. 2024 (arXiv 2310.08744) report 78% for two circuits of GPT-2 medium found by path patching. Overlap does not say that the shared heads do the same for both tasks: see component_reuse_faithfulness.';
COMMENT ON COLUMN component_reuse.study IS 'Study the row belongs to';
COMMENT ON COLUMN component_reuse.task_a IS 'One task; every pair occurs once';
COMMENT ON COLUMN component_reuse.task_b IS 'The other task';
COMMENT ON COLUMN component_reuse.mode IS 'Ablation, as in task_head_effects';
COMMENT ON COLUMN component_reuse.reference IS 'Reference of both tasks'' effects, as in task_head_effects; own_cell_and_task where they differ';
COMMENT ON COLUMN component_reuse.metric IS 'loss or logit_diff, as in task_head_effects; pairs in which a task lacks it have no row';
COMMENT ON COLUMN component_reuse.head_ranking IS 'harm: heads in order of how much worse their ablation makes the task; absolute: of how much it changes the metric either way';
COMMENT ON COLUMN component_reuse.top_share IS 'Size of both top sets as a share of all heads';
COMMENT ON COLUMN component_reuse.n_model_heads IS 'Number of heads of the model, N';
COMMENT ON COLUMN component_reuse.n_top_heads IS 'Number of heads in each top set, k: top_share * N, rounded, at least 1';
COMMENT ON COLUMN component_reuse.n_shared IS 'Number of heads in both top sets';
COMMENT ON COLUMN component_reuse.expected_shared IS 'Mean of n_shared over pairs of random sets of k of N heads: k^2 / N';
COMMENT ON COLUMN component_reuse.p_value IS 'Probability that two random sets of k of N heads share at least n_shared (hypergeometric); not corrected for the number of pairs';
COMMENT ON COLUMN component_reuse.jaccard IS 'n_shared / size of the union of both top sets, 0 to 1';
COMMENT ON COLUMN component_reuse.expected_jaccard IS 'Mean of jaccard over pairs of random sets of k of N heads; exact';
COMMENT ON COLUMN component_reuse.rank_correlation IS 'Spearman correlation over all heads of the strengths by which they are ranked; the same for every top_share; NULL where all heads of a task are equally strong';
COMMENT ON COLUMN component_reuse.shared_heads IS 'The shared heads, as L2H3';
