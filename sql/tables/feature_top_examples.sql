-- formula: 2
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae, token_id < d_vocab
CREATE TABLE feature_top_examples (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    activation FLOAT NOT NULL CHECK (activation > 0),
    token_id INTEGER NOT NULL CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    window_start INTEGER NOT NULL CHECK (window_start >= 0),
    window_tokens VARCHAR[] NOT NULL,
    window_activations FLOAT[] NOT NULL,
    PRIMARY KEY (study, layer, feature, rank),
    UNIQUE (study, layer, feature, sequence),
    CHECK (len(window_tokens) = len(window_activations)),
    CHECK (position - window_start BETWEEN 0 AND len(window_tokens) - 1),
    CHECK (list_min(window_activations) >= 0),
    CHECK (window_activations[position - window_start + 1] = activation)
);
COMMENT ON TABLE feature_top_examples IS 'One row per feature and rank: the tokens at which a feature is most active, at most one per sequence (the strongest; the earliest of equals), so that one repetitive text cannot fill the list. Fewer rows where the feature fires in fewer sequences. Equal activations are ranked by sequence.';
COMMENT ON COLUMN feature_top_examples.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_top_examples.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_top_examples.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_top_examples.rank IS 'Rank by activation, 0 = strongest';
COMMENT ON COLUMN feature_top_examples.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_top_examples.position IS 'Position of the token in the sequence, from 0 (BOS): the attention destination';
COMMENT ON COLUMN feature_top_examples.activation IS 'Activation of the feature at this token, in units of z';
COMMENT ON COLUMN feature_top_examples.token_id IS 'Id of the token at this position';
COMMENT ON COLUMN feature_top_examples.token IS 'Text of the token at this position';
COMMENT ON COLUMN feature_top_examples.window_start IS 'Position of the first token of the window around the example';
COMMENT ON COLUMN feature_top_examples.window_tokens IS 'Text of the tokens of the window, clipped to the sequence';
COMMENT ON COLUMN feature_top_examples.window_activations IS 'Activation of the feature at each token of the window; 0 where silent or where the token is left out (position 0, BOS)';
