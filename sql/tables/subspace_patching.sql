-- formula: 2
-- below: layer < n_layers, feature < d_sae
CREATE TABLE subspace_patching (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    site VARCHAR NOT NULL CHECK (site IN ('z', 'mlp_hidden')),
    layer INTEGER NOT NULL CHECK (layer >= 0),
    position_role VARCHAR NOT NULL,
    direction VARCHAR NOT NULL CHECK (direction IN ('counterfactual', 'name_order', 'sae_decoder')),
    feature INTEGER CHECK (feature >= 0),
    patched_part VARCHAR NOT NULL CHECK (patched_part IN ('direction', 'row', 'null', 'component')),
    matrix_rank BIGINT NOT NULL CHECK (matrix_rank > 0),
    width BIGINT NOT NULL CHECK (width > 0),
    share_row DOUBLE CHECK (share_row BETWEEN 0 AND 1.000001),
    m_clean DOUBLE NOT NULL,
    m_source DOUBLE NOT NULL,
    m_patched DOUBLE NOT NULL,
    fldd DOUBLE,
    n_prompts BIGINT NOT NULL CHECK (n_prompts > 0),
    patched_from VARCHAR NOT NULL,
    UNIQUE (study, task, site, layer, position_role, direction, feature, patched_part, patched_from),
    CHECK (matrix_rank <= width),
    CHECK ((direction = 'sae_decoder') = (feature IS NOT NULL))
);
COMMENT ON TABLE subspace_patching IS 'Patching along a direction of an activation, beside the part of it that the next weights read (Makelov et al. 2024, arXiv 2311.17030). Direction v = v_row + v_null: row space and null space of W_O or W_out. Patching along a unit direction d: x + d d . (x_source - x) at one position. An effect of v that v_row lacks comes through activating a direction dormant on clean runs; whether that is an illusion is contested: these are numbers, no verdicts. Processed weights.';
COMMENT ON COLUMN subspace_patching.study IS 'Study the row belongs to';
COMMENT ON COLUMN subspace_patching.task IS 'Task: ioi, or a task of task_prompts';
COMMENT ON COLUMN subspace_patching.site IS 'What is patched: z (a layer''s attention-weighted values, all heads, read by W_O) or mlp_hidden (an MLP''s hidden layer behind its activation function, read by W_out)';
COMMENT ON COLUMN subspace_patching.layer IS 'Layer of the site';
COMMENT ON COLUMN subspace_patching.position_role IS 'Role of the position patched';
COMMENT ON COLUMN subspace_patching.direction IS 'counterfactual: mean difference of clean and counterfactual runs there; name_order: mean over prompts that name IO first less mean over those that name S first (ABB less BAB); sae_decoder: decoder row of an SAE feature';
COMMENT ON COLUMN subspace_patching.feature IS 'The SAE feature, for sae_decoder: one of those whose mean activation there differs most between clean and counterfactual';
COMMENT ON COLUMN subspace_patching.patched_part IS 'direction: along v. row: along v_row. null: along v_null, which must change nothing. component: the whole activation at that position is replaced';
COMMENT ON COLUMN subspace_patching.matrix_rank IS 'Rank of the reading weights: singular values above 1e-5 of the largest. Written weights are centred, so it is below d_model';
COMMENT ON COLUMN subspace_patching.width IS 'Width of the site';
COMMENT ON COLUMN subspace_patching.share_row IS '|v_row|^2 / |v|^2';
COMMENT ON COLUMN subspace_patching.m_clean IS 'Mean logit difference of the clean runs';
COMMENT ON COLUMN subspace_patching.m_source IS 'Mean logit difference of the runs patched from';
COMMENT ON COLUMN subspace_patching.m_patched IS 'Mean logit difference of the patched runs';
COMMENT ON COLUMN subspace_patching.fldd IS 'Fractional logit difference decrease: 1 - m_patched / m_clean';
COMMENT ON COLUMN subspace_patching.n_prompts IS 'Prompts';
COMMENT ON COLUMN subspace_patching.patched_from IS 'Runs patched from: the counterfactual variant, or swap (IO and S1 exchanged in the same prompt)';
