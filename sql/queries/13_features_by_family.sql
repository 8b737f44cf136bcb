-- How many features of each layer belong to each family, and which are the clearest cases?
SELECT
    layer,
    family,
    count(*) AS n_features,
    list(feature ORDER BY list_sum(measured_values) DESC)[:5] AS clearest,
    list(text ORDER BY list_sum(measured_values) DESC)[:5] AS about
FROM feature_family_labels
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY layer, family
ORDER BY layer, n_features DESC;
