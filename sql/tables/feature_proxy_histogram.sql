-- formula: 2
-- per: site
-- references: feature_proxies (study, layer, proxy, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_proxy_histogram (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    proxy VARCHAR,
    feature INTEGER CHECK (feature >= 0),
    interval INTEGER CHECK (interval >= 0),
    low DOUBLE NOT NULL CHECK (low >= 0),
    high DOUBLE NOT NULL,
    n_active BIGINT NOT NULL CHECK (n_active >= 0),
    n_active_true BIGINT NOT NULL CHECK (n_active_true >= 0),
    n_active_documents BIGINT NOT NULL CHECK (n_active_documents >= 0),
    activation_sum DOUBLE NOT NULL CHECK (activation_sum >= 0),
    activation_sum_true DOUBLE NOT NULL CHECK (activation_sum_true >= 0),
    specificity_low DOUBLE CHECK (specificity_low BETWEEN 0 AND 1),
    specificity_high DOUBLE CHECK (specificity_high BETWEEN 0 AND 1),
    PRIMARY KEY (study, layer, proxy, feature, interval),
    CHECK (low < high),
    CHECK (n_active_true <= n_active),
    CHECK (activation_sum_true <= activation_sum * 1.000001),
    CHECK (n_active_documents <= n_active AND (n_active = 0) = (n_active_documents = 0)),
    CHECK ((n_active_documents < 2) = (specificity_low IS NULL))
);
COMMENT ON TABLE feature_proxy_histogram IS 'One row per proxy, feature that fired and activation interval of feature_intervals: the histogram of activations above 0 split by the proxy, as counts and as sums of activation. n_active and n_active_true are the specificity plot, the sums the expected-value plot (view feature_proxy_expected_value).';
COMMENT ON COLUMN feature_proxy_histogram.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_proxy_histogram.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_proxy_histogram.proxy IS 'Name of the proxy, defined in feature_proxies.definition';
COMMENT ON COLUMN feature_proxy_histogram.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_proxy_histogram.interval IS 'Interval of (0, max_activation], 0 = the weakest activations; the same as in feature_intervals';
COMMENT ON COLUMN feature_proxy_histogram.low IS 'Lower edge, not included, in units of z';
COMMENT ON COLUMN feature_proxy_histogram.high IS 'Upper edge, included, in units of z';
COMMENT ON COLUMN feature_proxy_histogram.n_active IS 'Tokens whose activation lies in (low, high]';
COMMENT ON COLUMN feature_proxy_histogram.n_active_true IS 'Of these, tokens at which the proxy is true';
COMMENT ON COLUMN feature_proxy_histogram.n_active_documents IS 'Documents with a token whose activation lies in (low, high], which the interval of specificity resamples';
COMMENT ON COLUMN feature_proxy_histogram.activation_sum IS 'Sum of the activations in (low, high]';
COMMENT ON COLUMN feature_proxy_histogram.activation_sum_true IS 'The same over tokens at which the proxy is true';
COMMENT ON COLUMN feature_proxy_histogram.specificity_low IS 'Lower bound of the 95% interval of n_active_true / n_active over documents, whose tokens are not independent: Clopper & Pearson''s at as many independent tokens as have the variance that resampling documents gives (Korn & Graubard 1998); NULL with fewer than 2 documents';
COMMENT ON COLUMN feature_proxy_histogram.specificity_high IS 'Upper bound of the same interval';
