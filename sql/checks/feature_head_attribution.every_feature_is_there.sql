-- Every feature of the SAE has rows, unless direct effects do not hold of the model
SELECT d_sae, (SELECT count(DISTINCT feature) FROM feature_head_attribution WHERE study = getvariable('study') AND layer = getvariable('layer')) AS n_features
FROM attention_sae
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (n_features = d_sae) IS NOT TRUE
    AND NOT (n_features = 0 AND (SELECT NOT holds FROM model_capabilities WHERE study = getvariable('study') AND analysis = 'direct_effects'));
