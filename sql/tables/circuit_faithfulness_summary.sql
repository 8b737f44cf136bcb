-- formula: 4
-- references: circuit_faithfulness (study, task, ranking, ranked_by, seed)
CREATE TABLE circuit_faithfulness_summary (
    study VARCHAR,
    task VARCHAR,
    ranking VARCHAR,
    ranked_by VARCHAR CHECK (ranked_by IN ('signed', 'absolute')),
    seed BIGINT,
    cpr DOUBLE NOT NULL,
    cmd DOUBLE NOT NULL CHECK (cmd >= 0),
    cpr_log DOUBLE NOT NULL,
    cmd_log DOUBLE NOT NULL CHECK (cmd_log >= 0),
    smallest_k_90 DOUBLE CHECK (smallest_k_90 > 0 AND smallest_k_90 <= 1),
    n_points BIGINT NOT NULL CHECK (n_points >= 2),
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    counterfactual VARCHAR NOT NULL,
    mode VARCHAR NOT NULL CHECK (mode IN ('counterfactual_pair')),
    reference VARCHAR NOT NULL CHECK (reference IN ('counterfactual_pair')),
    PRIMARY KEY (study, task, ranking, ranked_by, seed)
);
COMMENT ON TABLE circuit_faithfulness_summary IS 'Areas under the curves of circuit_faithfulness (MIB, Mueller et al. 2025, arXiv 2504.13151). With the default sizes a perfect curve has cpr .999, one that is 0 until all edges are there cmd .749. Half of the plain areas lies between k = 0.5 and 1; the log variants weigh every factor of k alike.';
COMMENT ON COLUMN circuit_faithfulness_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN circuit_faithfulness_summary.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN circuit_faithfulness_summary.ranking IS 'What orders the edges. eap, eap_ig_<rule>: edge_attribution. exact: exact effects, where all edges have one. head_ablation: drop in m when a head is mean-ablated (mean_counterfactual, as in head_set_quality); an edge is as good as its weaker end, embedding, MLPs and logits counting as the best head. trace <rule>: kept edges of trace_graph (fc24 or relative) by n_prompts, what is written at the destination leading into the query, at the source into the key; untraced edges follow in random order. trace_completed <rule>: traced edges with all edges among traced heads, embedding, MLPs and logits that a trace does not rank (values, MLPs, logits). trace_heads <rule>: all edges among the heads of a tracer (fc24 or relative, acc, acc++), as in head_ablation, by the prompts in which a pair of theirs was traced; trace_heads <rule>, edges: by those in which they are an end of a kept edge. Both on the prompts that all tracers traced. random: control';
COMMENT ON COLUMN circuit_faithfulness_summary.ranked_by IS 'signed: highest score first (what CPR is defined for); absolute: largest |score| first (CMD). Rankings without negative scores and random ones have signed alone';
COMMENT ON COLUMN circuit_faithfulness_summary.seed IS 'Seed of a random ranking, and of the order of ties in the others';
COMMENT ON COLUMN circuit_faithfulness_summary.cpr IS 'Circuit performance ratio: trapezoid of f over k; large is good. Defined for ranked_by = signed';
COMMENT ON COLUMN circuit_faithfulness_summary.cmd IS 'Circuit-model distance: trapezoid of |1 - f| over k; small is good. Defined for ranked_by = absolute';
COMMENT ON COLUMN circuit_faithfulness_summary.cpr_log IS 'Trapezoid of f over log k, divided by the range of log k: 1 for a perfect curve';
COMMENT ON COLUMN circuit_faithfulness_summary.cmd_log IS 'Trapezoid of |1 - f| over log k, divided by the range of log k: 0 for a perfect curve';
COMMENT ON COLUMN circuit_faithfulness_summary.smallest_k_90 IS 'Smallest stored k from which on |1 - f| stays at most .1';
COMMENT ON COLUMN circuit_faithfulness_summary.n_points IS 'Points of the curve';
COMMENT ON COLUMN circuit_faithfulness_summary.n_prompts IS 'Prompts';
COMMENT ON COLUMN circuit_faithfulness_summary.counterfactual IS 'Variant of each base prompt that corrupted outputs come from; of equal length, paired by pair_id';
COMMENT ON COLUMN circuit_faithfulness_summary.mode IS 'Ablation of the edges outside the circuit: counterfactual_pair, the output in the prompt''s own counterfactual';
COMMENT ON COLUMN circuit_faithfulness_summary.reference IS 'What that is taken from. counterfactual_pair: the one prompt of the variant `counterfactual` with the same pair_id';
