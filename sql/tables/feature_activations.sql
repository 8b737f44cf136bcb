-- formula: 1
-- per: site
CREATE TABLE feature_activations (
    study VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    position INTEGER NOT NULL,
    activation FLOAT NOT NULL
);
COMMENT ON TABLE feature_activations IS 'One row per token and feature whose activation is above 0 (sparse: a missing row is an activation of 0). Position 0 and every BOS token are left out. The number of tokens read is feature_statistics.n_tokens.';
COMMENT ON COLUMN feature_activations.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_activations.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_activations.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_activations.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_activations.position IS 'Position in the sequence, from 0 (BOS)';
COMMENT ON COLUMN feature_activations.activation IS 'Activation of the feature at this token, above 0, in units of z';
