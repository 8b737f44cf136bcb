-- formula: 5
-- references: intervention_results (study, task, intervention)
-- below: layer < n_layers, head < n_heads, feature < d_sae, upstream_layer < n_layers, upstream_head < n_heads
CREATE TABLE intervention_sets (
    study VARCHAR,
    task VARCHAR,
    intervention VARCHAR,
    member INTEGER CHECK (member >= 0),
    member_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    mode VARCHAR,
    reference VARCHAR,
    site VARCHAR NOT NULL,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    feature INTEGER CHECK (feature >= 0),
    position_role VARCHAR,
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR CHECK (side IN ('destination', 'source')),
    receiver VARCHAR,
    scope VARCHAR CHECK (scope IN ('local', 'global')),
    occurrence VARCHAR CHECK (occurrence IN ('kept', 'traced')),
    via_mlp BOOLEAN,
    error_kept BOOLEAN,
    is_control BOOLEAN,
    alpha DOUBLE,
    seed BIGINT,
    weights VARCHAR CHECK (weights IN ('processed', 'raw')),
    source_variant VARCHAR,
    senders VARCHAR,
    receivers VARCHAR,
    shared_with VARCHAR,
    receiver_role VARCHAR,
    direction VARCHAR,
    channel INTEGER CHECK (channel >= 0),
    ablated_run VARCHAR,
    other_fields VARCHAR,
    PRIMARY KEY (study, task, intervention, member),
    CHECK (upstream_layer <= layer)
);
COMMENT ON TABLE intervention_sets IS 'One row per member of a set of interventions that were made together in one forward pass.';
COMMENT ON COLUMN intervention_sets.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_sets.task IS 'ioi, or a task of task_prompts';
COMMENT ON COLUMN intervention_sets.intervention IS 'Identifier of the set, as in intervention_results';
COMMENT ON COLUMN intervention_sets.member IS 'Place of the member in the set, from 0';
COMMENT ON COLUMN intervention_sets.member_id IS 'Identifier that the member has as an intervention of its own';
COMMENT ON COLUMN intervention_sets.kind IS 'head_ablation, layer_ablation: z of a head, or z, attn_out or mlp_out of a layer. activation_patching: an activation goes from the counterfactual''s run into the clean one or back. path_patching: senders'' outputs from the counterfactual''s run, seen by receivers alone (Wang et al. 2022, appendix B). edge: what one head writes into the slices of Omega through which another reads it (Franco & Crovella 2024, section 5). sae_feature_ablation, sae_splice, sae_feature_path, sae_error_path: a feature removed, z replaced by its reconstruction (at one position: the error term removed), a feature or the error term removed as receivers see it (Kissane et al. 2024, App. K). steering: a vector added. head_scaling: z of a head times alpha';
COMMENT ON COLUMN intervention_sets.mode IS 'zero (0), mean_counterfactual (the mean over counterfactual prompts of the same cell, position by position), resample_counterfactual, resample_own (the value in one other prompt of the same cell, drawn by seed): x becomes x + alpha (that - x). denoise: the counterfactual is run with clean activations; noise: the clean prompt is run with the counterfactual''s. edge: ablate (x - alpha h) or boost (x + alpha h), or sad_ablate and sad_boost, the same as FC24''s published code does it: h from U_S U_S^T with the appended 1, centred, of the unedited run; local edits put q, k and v of the reader to those of its unedited input -+ h / s; edges of a set are summed. SAE kinds: ablate (z - alpha f_i d_i) or splice (z + alpha (x_hat - z)). NULL for steering and head_scaling';
COMMENT ON COLUMN intervention_sets.reference IS 'What the replacing activation is taken from. none: nothing of another prompt. counterfactual_cell: counterfactual prompts (variant source_variant; ABC for IOI) of the same cell, position by position. own_cell: the other prompts that were run, of the same cell. counterfactual_pair: the one prompt of source_variant with the same pair_id. A cell is a task, a template, a length and the positions of all roles. NULL for edits that replace nothing';
COMMENT ON COLUMN intervention_sets.site IS 'What is edited: z (attention-weighted values), attn_out, mlp_out, resid_pre, resid_mid, resid_post, q_input, k_input, v_input or qkv_input (the input of heads as their query, key, value or all three read it), logits (the residual stream as the unembedding reads it at END)';
COMMENT ON COLUMN intervention_sets.layer IS 'Edited layer; for an edge that of the downstream head, which reads; for path_patching that of the receiver, NULL where there are several or the logits; for a feature that of its SAE';
COMMENT ON COLUMN intervention_sets.head IS 'Edited head; for an edge the downstream head, for path_patching the only receiver; NULL for whole layers';
COMMENT ON COLUMN intervention_sets.feature IS 'SAE feature; NULL for other kinds';
COMMENT ON COLUMN intervention_sets.position_role IS 'Role of the edited position (END, S2, IO, ...), all: every position, for SAE kinds but BOS, or all_but_bos: every position from 1 on. For paths the positions of what is sent';
COMMENT ON COLUMN intervention_sets.upstream_layer IS 'Edge, path_patching from one head: layer of the head that writes';
COMMENT ON COLUMN intervention_sets.upstream_head IS 'Edge, path_patching from one head: the head that writes';
COMMENT ON COLUMN intervention_sets.destination_role IS 'Edge: role of the downstream pair''s destination (query)';
COMMENT ON COLUMN intervention_sets.source_role IS 'Edge: role of the downstream pair''s source (key)';
COMMENT ON COLUMN intervention_sets.side IS 'Edge: whether the upstream head writes at the pair''s destination or at its source';
COMMENT ON COLUMN intervention_sets.receiver IS 'What of the readers sees the edit: q, k, v, qkv or logits; NULL where every later reader does';
COMMENT ON COLUMN intervention_sets.scope IS 'Edge: local (only the downstream head''s normalised input changes, by h / s) or global (the upstream head''s attention output changes by h)';
COMMENT ON COLUMN intervention_sets.occurrence IS 'Edge: kept (edited in the prompts in which the trace kept it) or traced (in all prompts in which the downstream head''s pair was traced, as in the published code)';
COMMENT ON COLUMN intervention_sets.via_mlp IS 'Whether MLPs after the edit were computed anew. Paths: whether MLPs between sender and receiver were; false: they were frozen. All other heads are frozen on a path';
COMMENT ON COLUMN intervention_sets.error_kept IS 'SAE kinds: whether the reconstruction error was kept; NULL for others';
COMMENT ON COLUMN intervention_sets.is_control IS 'Edge: as many slices as the edge has, drawn at random from the others';
COMMENT ON COLUMN intervention_sets.alpha IS 'Strength of the edit: 0 changes nothing, 1 is the full edit; head_scaling: the factor, 1 changes nothing';
COMMENT ON COLUMN intervention_sets.seed IS 'Seed of a control''s draw, or of the prompts that resampling takes activations from; NULL otherwise';
COMMENT ON COLUMN intervention_sets.weights IS 'Weights that clean, corrupt, ablated and patched were run with: processed (LayerNorm folded, writing weights centred, b_V folded into b_O: zero ablation of z leaves b_V W_O in place) or raw (as published; SAEs read raw z)';
COMMENT ON COLUMN intervention_sets.source_variant IS 'Variant of the counterfactual prompts that activations come from, of the same pair (noise, paths) or of the same cell (mean_counterfactual, resample_counterfactual), or that is edited (denoise); NULL for other kinds';
COMMENT ON COLUMN intervention_sets.senders IS 'path_patching: heads whose outputs are sent, as L0H1+L2H3';
COMMENT ON COLUMN intervention_sets.receivers IS 'Paths: heads that see the edit, as L0H1+L2H3; NULL for the logits';
COMMENT ON COLUMN intervention_sets.shared_with IS 'Grouped-query attention: heads that see the edit beside those it names, because heads of a query group have one key and one value, as L0H1+L2H3; NULL where there are none: every other model, queries, global edges';
COMMENT ON COLUMN intervention_sets.receiver_role IS 'Paths: role of the positions at which receivers read, or all';
COMMENT ON COLUMN intervention_sets.direction IS 'steering: name of the vector; NULL where it is a feature''s decoder row through W_O';
COMMENT ON COLUMN intervention_sets.channel IS 'head_scaling: the only scaled dimension of the head''s z; NULL for all';
COMMENT ON COLUMN intervention_sets.ablated_run IS 'Identifier of the ablation whose patched value is `ablated`; NULL where there is none';
COMMENT ON COLUMN intervention_sets.other_fields IS 'Fields of the kind that have no column here, as JSON; NULL where all have one';
