-- formula: 1
-- per: site
-- references: feature_proxies (study, layer, proxy, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_proxy_examples (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    proxy VARCHAR,
    feature INTEGER CHECK (feature >= 0),
    error_kind VARCHAR CHECK (error_kind IN ('false_negative', 'false_positive')),
    rank INTEGER CHECK (rank >= 0),
    n_errors BIGINT NOT NULL CHECK (n_errors > rank),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    activation FLOAT NOT NULL CHECK (activation >= 0),
    text VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, proxy, feature, error_kind, rank),
    CHECK ((activation = 0) = (error_kind = 'false_negative'))
);
COMMENT ON TABLE feature_proxy_examples IS 'Tokens at which a proxy and a feature disagree, to be read (K24 section 3.3 and App. E): one row per proxy, feature, error and example, of the features.proxy_example_features features of the layer with the largest F1 for the proxy, 2 n_active_true / (n_active + n_true). A uniform sample of at most features.proxy_examples tokens of each error.';
COMMENT ON COLUMN feature_proxy_examples.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_proxy_examples.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_proxy_examples.proxy IS 'Name of the proxy, defined in feature_proxies.definition';
COMMENT ON COLUMN feature_proxy_examples.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_proxy_examples.error_kind IS 'false_negative: the proxy is true and the feature silent; false_positive: the feature is active and the proxy is not true';
COMMENT ON COLUMN feature_proxy_examples.rank IS 'Number of the example, from 0, in corpus order';
COMMENT ON COLUMN feature_proxy_examples.n_errors IS 'Tokens with this error, from which the examples were drawn';
COMMENT ON COLUMN feature_proxy_examples.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_proxy_examples.position IS 'Position of the token in the sequence, from 0 (BOS)';
COMMENT ON COLUMN feature_proxy_examples.activation IS 'Activation of the feature at this token, in units of z; 0 for a false negative';
COMMENT ON COLUMN feature_proxy_examples.text IS 'Text of the last 16 tokens up to and including this one, from the last BOS on; parts of characters are U+FFFD';
