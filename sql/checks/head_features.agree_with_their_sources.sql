-- attribution is that of feature_head_attribution, n_active and density are those of
-- feature_statistics
SELECT head, feature, h.attribution, a.attribution AS of_weights, h.n_active, s.n_active AS n_feature_active
FROM head_features AS h
LEFT JOIN feature_head_attribution AS a USING (study, layer, feature, head)
LEFT JOIN feature_statistics AS s USING (study, layer, feature)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (
    abs(h.attribution - of_weights) <= 1e-6
    AND h.n_active = n_feature_active
    AND h.density IS NOT DISTINCT FROM s.density
) IS NOT TRUE;
