-- formula: 2
-- per: site
CREATE TABLE feature_interval_examples (
    study VARCHAR NOT NULL,
    layer INTEGER NOT NULL,
    feature INTEGER NOT NULL,
    interval INTEGER NOT NULL,
    sample VARCHAR NOT NULL,
    rank INTEGER NOT NULL,
    sequence BIGINT NOT NULL,
    position INTEGER NOT NULL,
    activation FLOAT NOT NULL,
    token_id INTEGER NOT NULL,
    token VARCHAR NOT NULL
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
