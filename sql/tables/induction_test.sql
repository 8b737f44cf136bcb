-- formula: 3
-- per: site
-- below: layer < n_layers
CREATE TABLE induction_test (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature_group VARCHAR CHECK (feature_group IN ('selected', 'control', 'weak', 'between')),
    measure VARCHAR CHECK (measure IN ('induction_per_occurrence', 'induction_per_occurrence_same_prefix', 'induction_per_sequence', 'induction_per_sequence_same_prefix')),
    n_features BIGINT NOT NULL,
    n_tested BIGINT NOT NULL,
    n_passed BIGINT NOT NULL CHECK (n_passed >= 0),
    passed_share DOUBLE CHECK (passed_share BETWEEN 0 AND 1),
    ci_low DOUBLE CHECK (ci_low BETWEEN 0 AND 1),
    ci_high DOUBLE CHECK (ci_high BETWEEN 0 AND 1),
    PRIMARY KEY (study, layer, feature_group, measure),
    CHECK (n_passed <= n_tested AND n_tested <= n_features),
    CHECK ((n_tested = 0) = (passed_share IS NULL)),
    CHECK (ci_low <= passed_share AND passed_share <= ci_high)
);
COMMENT ON TABLE induction_test IS 'One row per layer, group of features and behaviour measure: how many features pass the induction heuristic among those that the weights select and among a control group (K24 section 3.3 reports 450 of 586 selected features of GPT-2 small, and 3 of 500 controls). The procedure is the same for every group.';
COMMENT ON COLUMN induction_test.study IS 'Study the row belongs to';
COMMENT ON COLUMN induction_test.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN induction_test.feature_group IS 'selected: head attribution of at least 0.6 to one induction head of the layer. control: head attributions to all its induction heads sum to less than 0.1 (all features of a layer without induction heads). weak: each of them is below 0.1, their sum is not; the paper''s control group can be read as control, or as control and weak. between: the others. Features that never fired are in none';
COMMENT ON COLUMN induction_test.measure IS 'induction_per_occurrence (K24''s pass rate, by occurrences that are due), induction_per_sequence (by sequences that pass wholly), or either with _same_prefix: defined in feature_families.measure';
COMMENT ON COLUMN induction_test.n_features IS 'Features in the group';
COMMENT ON COLUMN induction_test.n_tested IS 'Of these, features with at least feature_families.min_n terms of the measure';
COMMENT ON COLUMN induction_test.n_passed IS 'Of these, features whose measure is above 0.6';
COMMENT ON COLUMN induction_test.passed_share IS 'n_passed / n_tested; NULL where nothing was tested';
COMMENT ON COLUMN induction_test.ci_low IS 'Lower bound of its 95% Clopper-Pearson interval';
COMMENT ON COLUMN induction_test.ci_high IS 'Upper bound of its 95% Clopper-Pearson interval';
