-- formula: 2
-- below: layer < n_layers
CREATE TABLE feature_label_summary (
    study VARCHAR NOT NULL,
    layer INTEGER CHECK (layer >= 0),
    rater VARCHAR,
    n_labelled BIGINT NOT NULL CHECK (n_labelled > 0),
    n_interpretable BIGINT NOT NULL CHECK (n_interpretable >= 0),
    n_unsure BIGINT NOT NULL CHECK (n_unsure >= 0),
    interpretable_share DOUBLE NOT NULL CHECK (interpretable_share BETWEEN 0 AND 1),
    ci_low DOUBLE NOT NULL CHECK (ci_low BETWEEN 0 AND 1),
    ci_high DOUBLE NOT NULL CHECK (ci_high BETWEEN 0 AND 1),
    UNIQUE (study, layer, rater),
    CHECK (n_interpretable + n_unsure <= n_labelled),
    CHECK (ci_low <= interpretable_share AND interpretable_share <= ci_high)
);
COMMENT ON TABLE feature_label_summary IS 'One row per layer and rater, per layer, per rater, and one for the study: share of the labelled features that are called interpretable (K24 Table 2). A share of all features only where the labelled ones are a random sample of them.';
COMMENT ON COLUMN feature_label_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_label_summary.layer IS 'Layer of the SAE; NULL: all layers together';
COMMENT ON COLUMN feature_label_summary.rater IS 'Who gave the labels; NULL: all raters together, each feature counted once';
COMMENT ON COLUMN feature_label_summary.n_labelled IS 'Features labelled';
COMMENT ON COLUMN feature_label_summary.n_interpretable IS 'Of these, features with the verdict yes; with rater NULL: yes from everybody who labelled it';
COMMENT ON COLUMN feature_label_summary.n_unsure IS 'Features with the verdict unsure; with rater NULL: unsure from somebody';
COMMENT ON COLUMN feature_label_summary.interpretable_share IS 'n_interpretable / n_labelled, 0 to 1: unsure counts as not interpretable';
COMMENT ON COLUMN feature_label_summary.ci_low IS 'Lower bound of its 95% Clopper-Pearson interval';
COMMENT ON COLUMN feature_label_summary.ci_high IS 'Upper bound of its 95% Clopper-Pearson interval';
