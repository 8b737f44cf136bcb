SELECT
    layer,
    count(*) AS n_features,
    avg((n_active = 0)::INT) AS dead_fraction,
    any_value(e.l0) AS l0,
    any_value(e.explained_variance) AS explained_variance,
    any_value(e.ce_recovered) AS ce_recovered,
    any_value(e.kl_recovered) AS kl_recovered
FROM feature_statistics
LEFT JOIN sae_evaluation AS e USING (study, layer)
WHERE study = $study
GROUP BY layer
ORDER BY layer;
