-- No more features have a page than the SAE has
SELECT n_feature_pages, d_sae
FROM feature_dashboards
LEFT JOIN attention_sae USING (study, layer)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (n_feature_pages <= d_sae) IS NOT TRUE;
