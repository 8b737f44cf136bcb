-- formula: 4
CREATE TABLE circuit_faithfulness (
    study VARCHAR,
    task VARCHAR,
    ranking VARCHAR,
    ranked_by VARCHAR CHECK (ranked_by IN ('signed', 'absolute')),
    seed BIGINT,
    edge_fraction DOUBLE CHECK (edge_fraction > 0 AND edge_fraction <= 1),
    n_edges BIGINT NOT NULL CHECK (n_edges >= 0),
    n_ranked BIGINT NOT NULL CHECK (n_ranked >= 0),
    n_connected BIGINT NOT NULL CHECK (n_connected >= 0),
    m_circuit DOUBLE NOT NULL,
    m_empty DOUBLE NOT NULL,
    m_full DOUBLE NOT NULL,
    faithfulness DOUBLE NOT NULL,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    counterfactual VARCHAR NOT NULL,
    mode VARCHAR NOT NULL CHECK (mode IN ('counterfactual_pair')),
    reference VARCHAR NOT NULL CHECK (reference IN ('counterfactual_pair')),
    PRIMARY KEY (study, task, ranking, ranked_by, seed, edge_fraction),
    CHECK (n_connected <= n_edges)
);
COMMENT ON TABLE circuit_faithfulness IS 'Faithfulness over circuit size: every point of every curve. f = (m_circuit - m_empty) / (m_full - m_empty), means over prompts normalised, not single prompts. In a circuit''s run every receiver reads the source''s output of this very run along the circuit''s edges and its counterfactual output along all others (Hanna et al. 2024; MIB, Mueller et al. 2025, arXiv 2504.13151). m: logit difference = mean logit of the answers - mean logit of the wrong tokens at END, the tokens being those of the base prompt in every run.';
COMMENT ON COLUMN circuit_faithfulness.study IS 'Study the row belongs to';
COMMENT ON COLUMN circuit_faithfulness.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN circuit_faithfulness.ranking IS 'What orders the edges. eap, eap_ig_<rule>: edge_attribution. exact: exact effects, where all edges have one. head_ablation: drop in m when a head is mean-ablated (mean_counterfactual, as in head_set_quality); an edge is as good as its weaker end, embedding, MLPs and logits counting as the best head. trace <rule>: kept edges of trace_graph (fc24 or relative) by n_prompts, what is written at the destination leading into the query, at the source into the key; untraced edges follow in random order. trace_completed <rule>: traced edges with all edges among traced heads, embedding, MLPs and logits that a trace does not rank (values, MLPs, logits). trace_heads <rule>: all edges among the heads of a tracer (fc24 or relative, acc, acc++), as in head_ablation, by the prompts in which a pair of theirs was traced; trace_heads <rule>, edges: by those in which they are an end of a kept edge. Both on the prompts that all tracers traced. random: control';
COMMENT ON COLUMN circuit_faithfulness.ranked_by IS 'signed: highest score first (what CPR is defined for); absolute: largest |score| first (CMD). Rankings without negative scores and random ones have signed alone';
COMMENT ON COLUMN circuit_faithfulness.seed IS 'Seed of a random ranking, and of the order of ties in the others';
COMMENT ON COLUMN circuit_faithfulness.edge_fraction IS 'Size of the circuit as a share of all edges';
COMMENT ON COLUMN circuit_faithfulness.n_edges IS 'Edges in the circuit, floor(edge_fraction * all edges), counted before those on no path from embedding to logits are left out';
COMMENT ON COLUMN circuit_faithfulness.n_ranked IS 'Edges that the ranking has a score for; the others come last';
COMMENT ON COLUMN circuit_faithfulness.n_connected IS 'Edges of the circuit on a path from the embedding to the logits within it; the others change nothing';
COMMENT ON COLUMN circuit_faithfulness.m_circuit IS 'Mean logit difference with the circuit''s edges clean';
COMMENT ON COLUMN circuit_faithfulness.m_empty IS 'Mean logit difference of the counterfactual runs: no edge clean';
COMMENT ON COLUMN circuit_faithfulness.m_full IS 'Mean logit difference of the clean runs: all edges clean';
COMMENT ON COLUMN circuit_faithfulness.faithfulness IS 'f; above 1 where the circuit does better than the whole model';
COMMENT ON COLUMN circuit_faithfulness.n_prompts IS 'Prompts';
COMMENT ON COLUMN circuit_faithfulness.counterfactual IS 'Variant of each base prompt that corrupted outputs come from; of equal length, paired by pair_id';
COMMENT ON COLUMN circuit_faithfulness.mode IS 'Ablation of the edges outside the circuit: counterfactual_pair, the output in the prompt''s own counterfactual';
COMMENT ON COLUMN circuit_faithfulness.reference IS 'What that is taken from. counterfactual_pair: the one prompt of the variant `counterfactual` with the same pair_id';
