-- formula: 4
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_proxies (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    proxy VARCHAR,
    definition VARCHAR NOT NULL,
    feature INTEGER CHECK (feature >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens > 0),
    n_true BIGINT NOT NULL CHECK (n_true >= 0),
    n_active BIGINT NOT NULL CHECK (n_active > 0),
    n_active_true BIGINT NOT NULL CHECK (n_active_true >= 0),
    n_silent_true BIGINT NOT NULL CHECK (n_silent_true >= 0),
    n_active_documents BIGINT NOT NULL CHECK (n_active_documents > 0),
    n_true_documents BIGINT NOT NULL CHECK (n_true_documents >= 0),
    activation_sum DOUBLE NOT NULL CHECK (activation_sum > 0),
    activation_sum_true DOUBLE NOT NULL CHECK (activation_sum_true >= 0),
    specificity_low DOUBLE CHECK (specificity_low BETWEEN 0 AND 1),
    specificity_high DOUBLE CHECK (specificity_high BETWEEN 0 AND 1),
    sensitivity_low DOUBLE CHECK (sensitivity_low BETWEEN 0 AND 1),
    sensitivity_high DOUBLE CHECK (sensitivity_high BETWEEN 0 AND 1),
    mass_specificity_low DOUBLE CHECK (mass_specificity_low BETWEEN 0 AND 1),
    mass_specificity_high DOUBLE CHECK (mass_specificity_high BETWEEN 0 AND 1),
    PRIMARY KEY (study, layer, proxy, feature),
    CHECK (n_active_true + n_silent_true = n_true),
    CHECK (n_active_true <= n_active AND n_active <= n_tokens AND n_true <= n_tokens),
    CHECK (activation_sum_true <= activation_sum * 1.000001),
    CHECK (n_active_documents <= n_active AND n_true_documents <= n_true),
    CHECK (specificity_low <= specificity_high AND sensitivity_low <= sensitivity_high),
    CHECK (mass_specificity_low <= mass_specificity_high),
    CHECK ((n_active_documents < 2) = (specificity_low IS NULL)),
    CHECK ((n_active_documents < 2) = (mass_specificity_low IS NULL)),
    CHECK ((n_true_documents < 2) = (sensitivity_low IS NULL))
);
COMMENT ON TABLE feature_proxies IS 'One row per proxy of the study (features.proxies) and feature that fired: the four counts of (proxy true, feature active) over the tokens of feature_statistics, and how much activation falls where the proxy is true (K24 section 3.3; Bricken et al. 2023). Shares: view feature_proxy_shares. By activation: feature_proxy_histogram.';
COMMENT ON COLUMN feature_proxies.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_proxies.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_proxies.proxy IS 'Name of the proxy';
COMMENT ON COLUMN feature_proxies.definition IS 'When the proxy is true at a token, in words. The text of a window is the joined bytes of its tokens, cut at position 0 and at the last BOS; earlier occurrences lie in the same sequence';
COMMENT ON COLUMN feature_proxies.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_proxies.n_tokens IS 'Tokens read';
COMMENT ON COLUMN feature_proxies.n_true IS 'Tokens at which the proxy is true';
COMMENT ON COLUMN feature_proxies.n_active IS 'Tokens at which the activation is above 0';
COMMENT ON COLUMN feature_proxies.n_active_true IS 'Tokens at which both hold';
COMMENT ON COLUMN feature_proxies.n_silent_true IS 'Tokens at which the proxy is true and the activation 0: what the sensitivity plot shows at 0';
COMMENT ON COLUMN feature_proxies.n_active_documents IS 'Documents with a token at which the activation is above 0, which the intervals of specificity and mass_specificity resample';
COMMENT ON COLUMN feature_proxies.n_true_documents IS 'Documents with a token at which the proxy is true, which the interval of sensitivity resamples';
COMMENT ON COLUMN feature_proxies.activation_sum IS 'Sum of the activations, in units of z';
COMMENT ON COLUMN feature_proxies.activation_sum_true IS 'Sum of the activations at tokens at which the proxy is true';
COMMENT ON COLUMN feature_proxies.specificity_low IS 'Lower bound of the 95% interval of n_active_true / n_active over documents, whose tokens are not independent: Clopper & Pearson''s at as many independent tokens as have the variance that resampling documents gives (Korn & Graubard 1998); NULL with fewer than 2 documents';
COMMENT ON COLUMN feature_proxies.specificity_high IS 'Upper bound of the same interval';
COMMENT ON COLUMN feature_proxies.sensitivity_low IS 'Lower bound of the same interval of n_active_true / n_true; NULL where the proxy is true in fewer than 2 documents';
COMMENT ON COLUMN feature_proxies.sensitivity_high IS 'Upper bound of the same interval';
COMMENT ON COLUMN feature_proxies.mass_specificity_low IS 'Lower bound of the same interval of activation_sum_true / activation_sum, tokens weighted by activation; NULL with fewer than 2 documents';
COMMENT ON COLUMN feature_proxies.mass_specificity_high IS 'Upper bound of the same interval';
