-- Change of the logit difference when an SAE feature is removed at S2, by feature and order of names
SELECT
    'L' || layer || 'F' || feature || ' ' || coalesce(name_order, 'both') AS key,
    avg(patched - clean) AS value
FROM intervention_results
JOIN ioi_prompts USING (study, prompt)
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND kind = 'sae_feature_ablation'
    AND position_role = 'S2'
    AND metric = 'logit_diff'
GROUP BY GROUPING SETS ((layer, feature), (layer, feature, name_order))
ORDER BY key;
