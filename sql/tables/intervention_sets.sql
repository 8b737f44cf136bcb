-- formula: 1
CREATE TABLE intervention_sets (
    study VARCHAR,
    intervention VARCHAR,
    member INTEGER,
    member_id VARCHAR,
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
    seed BIGINT
);
COMMENT ON TABLE intervention_sets IS 'One row per member of a set of interventions that were made together in one forward pass.';
COMMENT ON COLUMN intervention_sets.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_sets.intervention IS 'Identifier of the set, as in intervention_results';
COMMENT ON COLUMN intervention_sets.member IS 'Place of the member in the set, from 0';
COMMENT ON COLUMN intervention_sets.member_id IS 'Identifier that the member has as an intervention of its own';
COMMENT ON COLUMN intervention_sets.kind IS 'head_ablation: z of a head. edge: what one head writes into the slices of Omega through which another reads it (Franco & Crovella 2024, section 5).';
COMMENT ON COLUMN intervention_sets.mode IS 'head_ablation: zero (z becomes (1 - alpha) z) or mean (z + alpha (mean - z), the mean over ABC prompts of the same template, name order and role positions). edge: ablate (x - alpha h) or boost (x + alpha h).';
COMMENT ON COLUMN intervention_sets.site IS 'What is edited: z (a head''s attention-weighted values), attn_out (a layer''s attention output), q_input, k_input or qkv_input (one head''s normalised input as its query, its key or all three read it)';
COMMENT ON COLUMN intervention_sets.layer IS 'Layer of the ablated head; for an edge that of the downstream head, which reads';
COMMENT ON COLUMN intervention_sets.head IS 'The ablated head; for an edge the downstream head';
COMMENT ON COLUMN intervention_sets.feature IS 'SAE feature; NULL for heads and edges';
COMMENT ON COLUMN intervention_sets.position_role IS 'Role of the edited position (END, S2, IO, ...), or all';
COMMENT ON COLUMN intervention_sets.upstream_layer IS 'Edge: layer of the head that writes';
COMMENT ON COLUMN intervention_sets.upstream_head IS 'Edge: the head that writes';
COMMENT ON COLUMN intervention_sets.destination_role IS 'Edge: role of the downstream pair''s destination (query)';
COMMENT ON COLUMN intervention_sets.source_role IS 'Edge: role of the downstream pair''s source (key)';
COMMENT ON COLUMN intervention_sets.side IS 'Edge: whether the upstream head writes at the pair''s destination or at its source';
COMMENT ON COLUMN intervention_sets.receiver IS 'Local edge edits: the downstream weights that see the edit, q, k or qkv; NULL for global edits, which every later reader sees';
COMMENT ON COLUMN intervention_sets.scope IS 'Edge: local (only the downstream head''s normalised input changes, by h / s) or global (the upstream head''s attention output changes by h)';
COMMENT ON COLUMN intervention_sets.via_mlp IS 'Whether MLPs after the edit were computed anew; always true for heads and edges';
COMMENT ON COLUMN intervention_sets.error_kept IS 'SAE interventions: whether the reconstruction error was kept; NULL for heads and edges';
COMMENT ON COLUMN intervention_sets.is_control IS 'Edge: as many slices as the edge has, drawn at random from the others';
COMMENT ON COLUMN intervention_sets.alpha IS 'Strength of the edit: 0 changes nothing, 1 is the full edit;';
COMMENT ON COLUMN intervention_sets.seed IS 'Seed of a control''s draw; NULL otherwise';
