-- formula: 1
-- per: site
-- references: tokenized_corpus (study, sequence)
-- below: layer < n_layers, token_id < d_vocab
CREATE TABLE activation_outliers (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    sequence BIGINT CHECK (sequence >= 0),
    position INTEGER CHECK (position >= 1),
    token_id INTEGER NOT NULL CHECK (token_id >= 0),
    norm DOUBLE NOT NULL CHECK (norm > 0),
    PRIMARY KEY (study, layer, sequence, position)
);
COMMENT ON TABLE activation_outliers IS 'One row per cached token that takes no part in SAE training and feature statistics of the layer because its z is too long (activations.exclude_norm_above); none without that setting';
COMMENT ON COLUMN activation_outliers.study IS 'Study the row belongs to';
COMMENT ON COLUMN activation_outliers.layer IS 'Layer whose z_cat is too long';
COMMENT ON COLUMN activation_outliers.sequence IS 'Number of the sequence (tokenized_corpus)';
COMMENT ON COLUMN activation_outliers.position IS 'Position of the token in the sequence, from 0 (BOS)';
COMMENT ON COLUMN activation_outliers.token_id IS 'Id of the token';
COMMENT ON COLUMN activation_outliers.norm IS 'L2 norm of its z_cat, raw weights; the limit is activation_statistics.norm_limit';
