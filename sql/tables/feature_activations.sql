-- formula: 1
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_activations (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    sequence BIGINT CHECK (sequence >= 0),
    position INTEGER CHECK (position >= 1),
    activation FLOAT NOT NULL CHECK (activation > 0),
    PRIMARY KEY (study, layer, feature, sequence, position)
);
COMMENT ON TABLE feature_activations IS 'One row per token and feature whose activation is above 0 (sparse: a missing row is an activation of 0). Position 0 and every BOS token are left out. The number of tokens read is feature_statistics.n_tokens.';
COMMENT ON COLUMN feature_activations.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_activations.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_activations.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_activations.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_activations.position IS 'Position in the sequence, from 0 (BOS)';
COMMENT ON COLUMN feature_activations.activation IS 'Activation of the feature at this token, above 0, in units of z';
