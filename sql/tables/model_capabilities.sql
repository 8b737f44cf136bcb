-- formula: 2
CREATE TABLE model_capabilities (
    study VARCHAR,
    analysis VARCHAR CHECK (
        analysis IN (
            'activations', 'processed_weights', 'feature_attribution', 'recursive_attribution',
            'direct_effects', 'path_patching', 'token_weights', 'query_key', 'tracing', 'edges'
        )
    ),
    holds BOOLEAN NOT NULL,
    error DOUBLE CHECK (error >= 0),
    allowed DOUBLE NOT NULL CHECK (allowed > 0),
    reason VARCHAR,
    PRIMARY KEY (study, analysis),
    CHECK (holds = (reason IS NULL)),
    CHECK (NOT holds OR error <= allowed)
);
COMMENT ON TABLE model_capabilities IS 'One row per kind of analysis: whether what it rests on holds of the study''s model, measured on a few real tokens when it was loaded. Tables of assets that need an analysis that does not hold have no rows; docs/models.md explains each.';
COMMENT ON COLUMN model_capabilities.study IS 'Study the row belongs to';
COMMENT ON COLUMN model_capabilities.analysis IS 'Kind of analysis: activations (z, patterns), processed_weights (norms folded in), feature_attribution (direct feature attribution), recursive_attribution, direct_effects (on logits), path_patching (heads frozen, MLPs recomputed), token_weights (what a head does to a token''s embedding), query_key (Omega and its singular vectors), tracing, edges (patched one by one)';
COMMENT ON COLUMN model_capabilities.holds IS 'Whether the analysis is true of the model';
COMMENT ON COLUMN model_capabilities.error IS 'Worst relative rms error of the identities that the analysis rests on; NULL: one of them cannot be computed of this architecture';
COMMENT ON COLUMN model_capabilities.allowed IS 'Largest error with which an identity holds, by the precision that the model is run in';
COMMENT ON COLUMN model_capabilities.reason IS 'Why the analysis does not hold: the identity that is broken, and what of the architecture breaks it; NULL where it holds';
