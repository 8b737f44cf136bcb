-- Do the features that induction heads write fire where their token is due by induction, more often than features of other heads?
SELECT
    layer,
    feature_group,
    n_features,
    t.n_tested,
    t.n_passed,
    round(t.passed_share, 3) AS pass_share_per_occurrence,
    round(t.ci_low, 3) AS low_95,
    round(t.ci_high, 3) AS high_95,
    same.n_passed || ' of ' || same.n_tested AS with_same_prefix,
    whole.n_passed || ' of ' || whole.n_tested AS per_sequence
FROM induction_test AS t
JOIN induction_test AS same USING (study, layer, feature_group, n_features)
JOIN induction_test AS whole USING (study, layer, feature_group, n_features)
WHERE study = coalesce(getvariable('study'), 'organism')
    AND t.measure = 'induction_per_occurrence'
    AND same.measure = 'induction_per_occurrence_same_prefix'
    AND whole.measure = 'induction_per_sequence'
    AND n_features > 0
ORDER BY layer, feature_group DESC;
