-- formula: 2
-- below: source_layer < n_layers, source_head < n_heads, receiver_layer < n_layers, receiver_head < n_heads
CREATE TABLE edge_attribution (
    study VARCHAR,
    task VARCHAR,
    edge_number INTEGER CHECK (edge_number >= 0),
    source_kind VARCHAR NOT NULL CHECK (source_kind IN ('embedding', 'head', 'mlp')),
    source_layer INTEGER CHECK (source_layer >= 0),
    source_head INTEGER CHECK (source_head >= 0),
    receiver_input VARCHAR NOT NULL CHECK (receiver_input IN ('q', 'k', 'v', 'mlp', 'logits')),
    receiver_layer INTEGER CHECK (receiver_layer >= 0),
    receiver_head INTEGER CHECK (receiver_head >= 0),
    method VARCHAR CHECK (method IN ('eap', 'eap_ig')),
    rule VARCHAR CHECK (rule IN ('clean', 'library', 'paper', 'midpoint')),
    ig_steps INTEGER NOT NULL CHECK (ig_steps > 0),
    attribution_score DOUBLE NOT NULL,
    exact DOUBLE,
    counterfactual VARCHAR NOT NULL,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    n_exact_prompts BIGINT CHECK (n_exact_prompts >= 0),
    PRIMARY KEY (study, task, edge_number, method, rule),
    CHECK ((source_layer IS NULL) = (source_kind = 'embedding')),
    CHECK ((source_head IS NOT NULL) = (source_kind = 'head')),
    CHECK ((receiver_layer IS NULL) = (receiver_input = 'logits')),
    CHECK ((receiver_head IS NOT NULL) = (receiver_input IN ('q', 'k', 'v'))),
    CHECK (source_layer <= receiver_layer)
);
COMMENT ON TABLE edge_attribution IS 'Score of every edge of the model''s graph by gradients, beside its exact effect where that was computed. Nodes write the residual stream: input embedding (with positions), attention heads, MLPs. Receivers read it: every head''s query, key and value input, every MLP''s input, the logits. One row per task, edge, method and rule. e(u -> v) = sum over positions (u counterfactual - u clean) . (weighted sum of gradients of -m with respect to v''s input), mean over prompts; m is the logit difference = mean logit of the answers - mean logit of the wrong tokens at END, the tokens being those of the base prompt in every run. Processed weights.';
COMMENT ON COLUMN edge_attribution.study IS 'Study the row belongs to';
COMMENT ON COLUMN edge_attribution.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN edge_attribution.edge_number IS 'Number of the edge in the model''s graph, by receiver, then source';
COMMENT ON COLUMN edge_attribution.source_kind IS 'What writes: embedding, head or mlp';
COMMENT ON COLUMN edge_attribution.source_layer IS 'Its layer; NULL for the embedding';
COMMENT ON COLUMN edge_attribution.source_head IS 'Its head; NULL for embedding and MLPs';
COMMENT ON COLUMN edge_attribution.receiver_input IS 'What reads: q, k or v (a head''s query, key or value input), mlp, logits';
COMMENT ON COLUMN edge_attribution.receiver_layer IS 'Its layer; NULL for the logits';
COMMENT ON COLUMN edge_attribution.receiver_head IS 'The head; for k and v of models with grouped queries the key-value group, whose heads share the input; NULL for MLPs and logits';
COMMENT ON COLUMN edge_attribution.method IS 'eap: gradients of the clean run (Syed et al. 2023, arXiv 2310.10348). eap_ig: mean of gradients at points between counterfactual and clean input embeddings, EAP-IG-inputs (Hanna et al. 2024, arXiv 2403.17806)';
COMMENT ON COLUMN edge_attribution.rule IS 'Points alpha between counterfactual (0) and clean (1). clean: alpha = 1 alone. With M = steps: library alpha = k/M for k = 0 .. M-1 (what the authors'' code sums), paper k = 1 .. M (what the papers print), midpoint (k + 1/2)/M';
COMMENT ON COLUMN edge_attribution.ig_steps IS 'Number of points; each has weight 1/steps';
COMMENT ON COLUMN edge_attribution.attribution_score IS 'First-order estimate of m(clean) - m(edge corrupted), in logits: positive where the edge raises the logit difference';
COMMENT ON COLUMN edge_attribution.exact IS 'm(clean) - m(edge corrupted), with this receiver alone reading the source''s counterfactual output (mode counterfactual_pair); mean over the first n_exact_prompts prompts; NULL where the edge was not patched';
COMMENT ON COLUMN edge_attribution.counterfactual IS 'Variant of each base prompt that corrupted outputs come from; of equal length, paired by pair_id';
COMMENT ON COLUMN edge_attribution.n_prompts IS 'Prompts behind attribution_score';
COMMENT ON COLUMN edge_attribution.n_exact_prompts IS 'Prompts behind exact';
