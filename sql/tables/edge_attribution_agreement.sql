-- formula: 2
-- references: edge_attribution (study, task, method, rule)
CREATE TABLE edge_attribution_agreement (
    study VARCHAR,
    task VARCHAR,
    method VARCHAR CHECK (method IN ('eap', 'eap_ig')),
    rule VARCHAR CHECK (rule IN ('clean', 'library', 'paper', 'midpoint')),
    ig_steps INTEGER NOT NULL CHECK (ig_steps > 0),
    pearson DOUBLE CHECK (pearson BETWEEN -1.000001 AND 1.000001),
    spearman DOUBLE CHECK (spearman BETWEEN -1.000001 AND 1.000001),
    sign_agreement DOUBLE CHECK (sign_agreement BETWEEN 0 AND 1),
    top_overlap DOUBLE CHECK (top_overlap BETWEEN 0 AND 1),
    n_top_edges BIGINT NOT NULL CHECK (n_top_edges >= 0),
    counterfactual VARCHAR NOT NULL,
    n_exact_edges BIGINT NOT NULL CHECK (n_exact_edges > 0),
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    PRIMARY KEY (study, task, method, rule)
);
COMMENT ON TABLE edge_attribution_agreement IS 'How well edge attribution agrees with exact patching of single edges, on the same prompts and edges. One row per task, method and rule. Most edges do next to nothing: Pearson is about the few large ones, Spearman about the order of all.';
COMMENT ON COLUMN edge_attribution_agreement.study IS 'Study the row belongs to';
COMMENT ON COLUMN edge_attribution_agreement.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN edge_attribution_agreement.method IS 'eap: gradients of the clean run (Syed et al. 2023, arXiv 2310.10348). eap_ig: mean of gradients at points between counterfactual and clean input embeddings, EAP-IG-inputs (Hanna et al. 2024, arXiv 2403.17806)';
COMMENT ON COLUMN edge_attribution_agreement.rule IS 'Points alpha between counterfactual (0) and clean (1). clean: alpha = 1 alone. With M = steps: library alpha = k/M for k = 0 .. M-1 (what the authors'' code sums), paper k = 1 .. M (what the papers print), midpoint (k + 1/2)/M';
COMMENT ON COLUMN edge_attribution_agreement.ig_steps IS 'Number of points; each has weight 1/steps';
COMMENT ON COLUMN edge_attribution_agreement.pearson IS 'Pearson correlation of scores and exact effects over edges; NULL where one is constant';
COMMENT ON COLUMN edge_attribution_agreement.spearman IS 'Spearman correlation, tied ranks averaged';
COMMENT ON COLUMN edge_attribution_agreement.sign_agreement IS 'Share of the edges with an exact effect other than 0 whose attribution_score has the same sign';
COMMENT ON COLUMN edge_attribution_agreement.top_overlap IS 'Share of the n_top_edges edges largest by |exact| that are among the n_top_edges largest by |attribution_score|';
COMMENT ON COLUMN edge_attribution_agreement.n_top_edges IS '1% of the graph''s edges';
COMMENT ON COLUMN edge_attribution_agreement.counterfactual IS 'Variant of each base prompt that corrupted outputs come from; of equal length, paired by pair_id';
COMMENT ON COLUMN edge_attribution_agreement.n_exact_edges IS 'Edges patched exactly';
COMMENT ON COLUMN edge_attribution_agreement.n_prompts IS 'Prompts behind scores and effects alike';
