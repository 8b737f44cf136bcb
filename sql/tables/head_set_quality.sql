-- formula: 4
-- below: layer < n_layers, head < n_heads
CREATE TABLE head_set_quality (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    head_set VARCHAR NOT NULL,
    seed BIGINT,
    quantity VARCHAR NOT NULL CHECK (quantity IN ('faithfulness', 'completeness', 'minimality')),
    subset VARCHAR NOT NULL,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    n_set_heads BIGINT NOT NULL CHECK (n_set_heads >= 0),
    n_removed BIGINT NOT NULL CHECK (n_removed >= 0),
    m_circuit DOUBLE NOT NULL,
    ci_low DOUBLE,
    ci_high DOUBLE,
    m_other DOUBLE NOT NULL,
    gap DOUBLE NOT NULL CHECK (gap >= 0),
    relative DOUBLE CHECK (relative >= 0),
    m_full DOUBLE NOT NULL,
    m_empty DOUBLE NOT NULL,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    mode VARCHAR NOT NULL,
    reference VARCHAR NOT NULL,
    reference_variant VARCHAR NOT NULL,
    UNIQUE (study, task, head_set, seed, quantity, subset, layer, head),
    CHECK (n_removed <= n_set_heads),
    CHECK (ci_low <= ci_high),
    CHECK ((ci_low IS NULL) = (quantity = 'minimality' OR n_prompts < 2)),
    CHECK ((quantity = 'minimality') = (layer IS NOT NULL)),
    CHECK ((layer IS NULL) = (head IS NULL)),
    CHECK (abs(gap - abs(m_circuit - m_other)) <= 1e-6 * (1 + abs(gap)))
);
COMMENT ON TABLE head_set_quality IS 'Faithfulness, completeness and minimality of head sets (Wang et al. 2022, arXiv 2211.00593, section 4). F(C) is the mean logit difference over prompts with z of every head outside C replaced by its mean over reference prompts of the same template and role positions; MLPs stay; M is the set of all heads. Processed weights.';
COMMENT ON COLUMN head_set_quality.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_set_quality.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN head_set_quality.head_set IS 'The set C. trace <rule>: as many heads of a tracer (fc24 or relative, acc, acc++), those with traced pairs in most prompts, ties by pairs; trace <rule>, edges: those at the ends of kept edges in most prompts; both on the prompts that all tracers traced; head_ablation: heads whose ablation lowers m most; roles: all heads of view head_roles; role <name>: heads of one role; published circuits and the study''s reference heads by name; random:<n> heads: control of that size';
COMMENT ON COLUMN head_set_quality.seed IS 'Number of a random set; NULL for the others';
COMMENT ON COLUMN head_set_quality.quantity IS 'faithfulness |F(C) - F(M)|; completeness |F(C - K) - F(M - K)|; minimality of a head v: the largest |F(C - K) - F(C - K - {v})| over the subsets K tried';
COMMENT ON COLUMN head_set_quality.subset IS 'The subset K taken out: none, all (the whole of C), role <name> (C''s heads of that role) or random <n>; for minimality the one with the largest change (v itself is kept before it is taken out)';
COMMENT ON COLUMN head_set_quality.layer IS 'Layer of the head v, for minimality';
COMMENT ON COLUMN head_set_quality.head IS 'The head v, for minimality';
COMMENT ON COLUMN head_set_quality.n_set_heads IS 'Heads in C';
COMMENT ON COLUMN head_set_quality.n_removed IS 'Heads of C taken out: K, and v for minimality';
COMMENT ON COLUMN head_set_quality.m_circuit IS 'F(C), F(C - K)';
COMMENT ON COLUMN head_set_quality.ci_low IS 'Lower end of a 95% interval of m_circuit: percentile bootstrap over prompts; NULL for minimality and below 2 prompts';
COMMENT ON COLUMN head_set_quality.ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN head_set_quality.m_other IS 'What it is compared with: F(M), F(M - K); for minimality F(C - K - {v})';
COMMENT ON COLUMN head_set_quality.gap IS '|m_circuit - m_other|, in logits';
COMMENT ON COLUMN head_set_quality.relative IS 'gap / |F(M)|';
COMMENT ON COLUMN head_set_quality.m_full IS 'F(M): the untouched model';
COMMENT ON COLUMN head_set_quality.m_empty IS 'F of no head: all ablated';
COMMENT ON COLUMN head_set_quality.n_prompts IS 'Prompts';
COMMENT ON COLUMN head_set_quality.mode IS 'Ablation of the heads outside C: mean_counterfactual, z replaced by its mean over counterfactual prompts at every position';
COMMENT ON COLUMN head_set_quality.reference IS 'What the mean is over. counterfactual_cell: the prompts of reference_variant of the same cell, position by position. A cell is a task, a template, a length and the positions of all roles';
COMMENT ON COLUMN head_set_quality.reference_variant IS 'Variant of the prompts that z is averaged over: ABC, or the counterfactual variant of the task';
