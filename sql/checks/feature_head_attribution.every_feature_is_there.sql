-- Every feature of the SAE has rows
SELECT d_sae, (SELECT count(DISTINCT feature) FROM feature_head_attribution WHERE study = getvariable('study') AND layer = getvariable('layer')) AS n_features
FROM attention_sae
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (n_features = d_sae) IS NOT TRUE;
