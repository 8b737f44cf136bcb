CREATE VIEW layer_family_shares AS
SELECT
    s.study,
    s.layer,
    l.family,
    s.n,
    count(*) AS n_with_family,
    count(*) / s.n AS family_share
FROM (
    SELECT study, layer, count(*) AS n
    FROM feature_statistics
    WHERE n_active > 0
    GROUP BY study, layer
) AS s
JOIN feature_family_labels AS l USING (study, layer)
GROUP BY s.study, s.layer, l.family, s.n;
COMMENT ON VIEW layer_family_shares IS 'One row per layer and family that some of its features belong to: how many of the features that fired do (K24 App. M: how abstract features are, by layer).';
COMMENT ON COLUMN layer_family_shares.family IS 'Family: the label';
COMMENT ON COLUMN layer_family_shares.n IS 'Features of the layer that fired';
COMMENT ON COLUMN layer_family_shares.n_with_family IS 'Those of them that belong to the family';
COMMENT ON COLUMN layer_family_shares.family_share IS 'n_with_family / n';
