-- Change of the logit difference when an SAE feature, or an SAE's error term, is removed at S2, by order of names
-- statistic: mean over prompts of the change of logit IO - logit S
-- position: each prompt's S2
-- weights: raw
-- prompts: this project's
-- reference: feature removed, error kept
-- run: model, bos, sae
SELECT
    'L' || layer || coalesce('F' || feature, ' error') || ' ' || coalesce(name_order, 'both') AS key,
    avg(patched - clean) AS value
FROM intervention_results
JOIN ioi_prompts USING (study, prompt)
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND kind IN ('sae_feature_ablation', 'sae_splice')
    AND position_role = 'S2'
    AND metric = 'logit_diff'
GROUP BY GROUPING SETS ((layer, feature), (layer, feature, name_order))
ORDER BY key;
