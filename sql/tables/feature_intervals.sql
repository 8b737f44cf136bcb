-- formula: 3
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_intervals (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    interval INTEGER CHECK (interval >= 0),
    low DOUBLE NOT NULL CHECK (low >= 0),
    high DOUBLE NOT NULL,
    n_active BIGINT NOT NULL CHECK (n_active >= 0),
    active_share DOUBLE NOT NULL CHECK (active_share BETWEEN 0 AND 1),
    PRIMARY KEY (study, layer, feature, interval),
    CHECK (low < high)
);
COMMENT ON TABLE feature_intervals IS 'One row per feature that fired and activation interval: edges linspace(0, max_activation, n + 1), membership (low, high], so that an activation of 0 belongs to none. Counts are exact. Features that never fired have no rows. Tokens of an interval: feature_interval_examples.';
COMMENT ON COLUMN feature_intervals.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_intervals.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_intervals.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_intervals.interval IS 'Interval, 0 = the weakest activations';
COMMENT ON COLUMN feature_intervals.low IS 'Lower edge, not included, in units of z';
COMMENT ON COLUMN feature_intervals.high IS 'Upper edge, included, in units of z';
COMMENT ON COLUMN feature_intervals.n_active IS 'Tokens whose activation lies in (low, high]';
COMMENT ON COLUMN feature_intervals.active_share IS 'n_active / all tokens at which the feature is active, 0 to 1; sums to 1 over the intervals of a feature';
