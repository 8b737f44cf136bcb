-- formula: 3
-- per: site
-- references: feature_intervals (study, layer, feature, interval)
-- below: layer < n_layers, feature < d_sae, token_id < d_vocab
CREATE TABLE feature_interval_examples (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    interval INTEGER CHECK (interval >= 0),
    sample VARCHAR CHECK (sample IN ('top', 'random')),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    activation FLOAT NOT NULL CHECK (activation > 0),
    token_id INTEGER NOT NULL CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, feature, interval, sample, rank)
);
COMMENT ON TABLE feature_interval_examples IS 'One row per feature, activation interval of feature_intervals, sample and rank: the strongest tokens of the interval, and a uniform random sample of it. Fewer rows where an interval holds fewer tokens. A token may be of both kinds. Unlike feature_top_examples, several tokens of one sequence may be listed.';
COMMENT ON COLUMN feature_interval_examples.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_interval_examples.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_interval_examples.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_interval_examples.interval IS 'Interval of feature_intervals, 0 = the weakest activations';
COMMENT ON COLUMN feature_interval_examples.sample IS 'top: the strongest tokens of the interval, of equals the earliest; random: a uniform sample without replacement, the tokens with the smallest seeded hash of (sequence, position)';
COMMENT ON COLUMN feature_interval_examples.rank IS 'Rank within the sample, from 0: by activation (top) or by hash (random)';
COMMENT ON COLUMN feature_interval_examples.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_interval_examples.position IS 'Position of the token in the sequence, from 0 (BOS): the attention destination';
COMMENT ON COLUMN feature_interval_examples.activation IS 'Activation of the feature at this token, in units of z';
COMMENT ON COLUMN feature_interval_examples.token_id IS 'Id of the token at this position';
COMMENT ON COLUMN feature_interval_examples.token IS 'Text of the token at this position';
