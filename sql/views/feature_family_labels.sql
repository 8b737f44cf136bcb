CREATE VIEW feature_family_labels AS
SELECT
    study,
    layer,
    feature,
    family,
    list(measure ORDER BY measure) AS measures,
    list(value ORDER BY measure) AS measured_values,
    min(n) AS smallest_n,
    max(text) AS text
FROM feature_families
WHERE required
GROUP BY study, layer, feature, family
HAVING bool_and(coalesce(meets_threshold, false));
COMMENT ON VIEW feature_family_labels IS 'One row per feature and family whose required measures all pass. A feature may have several families or none. Only the induction rule is a published one (K24 section 3.3); the other families'' rules are heuristics, defined in feature_families.measure: filter feature_families yourself for other thresholds.';
COMMENT ON COLUMN feature_family_labels.family IS 'Family: the label';
COMMENT ON COLUMN feature_family_labels.measures IS 'Measures that the label rests on, by name';
COMMENT ON COLUMN feature_family_labels.measured_values IS 'Their values, parallel to measures';
COMMENT ON COLUMN feature_family_labels.smallest_n IS 'Fewest terms behind one of them';
COMMENT ON COLUMN feature_family_labels.text IS 'Token or n-gram that the measures are about, where they are about one';
