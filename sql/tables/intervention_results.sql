-- formula: 1
CREATE TABLE intervention_results (
    study VARCHAR,
    prompt BIGINT,
    intervention VARCHAR,
    kind VARCHAR,
    mode VARCHAR,
    site VARCHAR,
    layer INTEGER,
    head INTEGER,
    feature INTEGER,
    position_role VARCHAR,
    upstream_layer INTEGER,
    upstream_head INTEGER,
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR,
    receiver VARCHAR,
    scope VARCHAR,
    via_mlp BOOLEAN,
    error_kept BOOLEAN,
    is_control BOOLEAN,
    alpha DOUBLE,
    seed BIGINT,
    n_slices INTEGER,
    metric VARCHAR,
    clean DOUBLE,
    corrupt DOUBLE,
    reference DOUBLE,
    patched DOUBLE,
    cosine DOUBLE,
    norm_ratio DOUBLE
);
COMMENT ON TABLE intervention_results IS 'One row per prompt, intervention and metric. Processed weights (LayerNorm folded, writing weights centred, b_V folded into b_O: zero ablation leaves b_V W_O in place); clean and patched run on the same weights. Franco & Crovella 2024, section 5; Wang et al. 2022, section 3.';
COMMENT ON COLUMN intervention_results.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_results.prompt IS 'Prompt, as in ioi_prompts';
COMMENT ON COLUMN intervention_results.intervention IS 'Stable identifier of what was done; the same in every run and study';
COMMENT ON COLUMN intervention_results.kind IS 'head_ablation: z of a head. edge: what one head writes into the slices of Omega through which another reads it (Franco & Crovella 2024, section 5). set: several interventions in one forward pass, listed in intervention_sets';
COMMENT ON COLUMN intervention_results.mode IS 'head_ablation: zero (z becomes (1 - alpha) z) or mean (z + alpha (mean - z), the mean over ABC prompts of the same template, name order and role positions). edge: ablate (x - alpha h) or boost (x + alpha h). NULL for a set';
COMMENT ON COLUMN intervention_results.site IS 'What is edited: z (a head''s attention-weighted values), attn_out (a layer''s attention output), q_input, k_input or qkv_input (one head''s normalised input as its query, its key or all three read it), set';
COMMENT ON COLUMN intervention_results.layer IS 'Layer of the ablated head; for an edge that of the downstream head, which reads';
COMMENT ON COLUMN intervention_results.head IS 'The ablated head; for an edge the downstream head';
COMMENT ON COLUMN intervention_results.feature IS 'SAE feature; NULL for heads and edges';
COMMENT ON COLUMN intervention_results.position_role IS 'Role of the edited position (END, S2, IO, ...), or all';
COMMENT ON COLUMN intervention_results.upstream_layer IS 'Edge: layer of the head that writes';
COMMENT ON COLUMN intervention_results.upstream_head IS 'Edge: the head that writes';
COMMENT ON COLUMN intervention_results.destination_role IS 'Edge: role of the downstream pair''s destination (query)';
COMMENT ON COLUMN intervention_results.source_role IS 'Edge: role of the downstream pair''s source (key)';
COMMENT ON COLUMN intervention_results.side IS 'Edge: whether the upstream head writes at the pair''s destination or at its source';
COMMENT ON COLUMN intervention_results.receiver IS 'Local edge edits: the downstream weights that see the edit, q, k or qkv; NULL for global edits, which every later reader sees';
COMMENT ON COLUMN intervention_results.scope IS 'Edge: local (only the downstream head''s normalised input changes, by h / s) or global (the upstream head''s attention output changes by h)';
COMMENT ON COLUMN intervention_results.via_mlp IS 'Whether MLPs after the edit were computed anew; always true for heads and edges';
COMMENT ON COLUMN intervention_results.error_kept IS 'SAE interventions: whether the reconstruction error was kept; NULL for heads and edges';
COMMENT ON COLUMN intervention_results.is_control IS 'Edge: as many slices as the edge has, drawn at random from the others';
COMMENT ON COLUMN intervention_results.alpha IS 'Strength of the edit: 0 changes nothing, 1 is the full edit; NULL for a set';
COMMENT ON COLUMN intervention_results.seed IS 'Seed of a control''s draw; NULL otherwise';
COMMENT ON COLUMN intervention_results.n_slices IS 'Edge: number of slices projected on in this prompt (size of S, summed over the prompt''s pairs)';
COMMENT ON COLUMN intervention_results.metric IS 'At END: logit_diff = logit(IO) - logit(S); kl = KL(clean || patched) of the next token, nats; loss = -log p(IO), nats; prob = p(IO). For edges also attn_score: the downstream head''s score on its pair before softmax, q . k / sqrt(d_head), mean over the prompt''s pairs';
COMMENT ON COLUMN intervention_results.clean IS 'Metric of the unedited run on this prompt (kl: 0)';
COMMENT ON COLUMN intervention_results.corrupt IS 'Metric of the corrupted run, for patching between runs; NULL for ablations and edges';
COMMENT ON COLUMN intervention_results.reference IS 'Metric of the reference run that recovered fractions are normalised by (zero-ablated, for SAE splices); NULL where there is none';
COMMENT ON COLUMN intervention_results.patched IS 'Metric of the edited run. Effect = patched - clean: negative logit_diff and prob, positive loss and kl mean worse at the task';
COMMENT ON COLUMN intervention_results.cosine IS 'Cosine between the residual stream at the edited site with and without the edit, mean over edited positions: after the layer''s attention (head ablations and global edges; the upstream layer''s), at the downstream layer''s input (local edges); members'' mean for a set';
COMMENT ON COLUMN intervention_results.norm_ratio IS 'Norm of that residual with the edit over its norm without';
