-- Pages are counted as in feature_dashboards
SELECT n_layer_pages, n_feature_pages, layers, features
FROM study_dashboards
LEFT JOIN (
    SELECT study, count(*) AS layers, sum(n_feature_pages) AS features
    FROM feature_dashboards
    GROUP BY study
) USING (study)
WHERE study = getvariable('study') AND (n_layer_pages = layers AND n_feature_pages = features) IS NOT TRUE;
