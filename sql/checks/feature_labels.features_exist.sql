-- Labelled features are features of the layer's SAE
SELECT layer, feature, rater, d_sae
FROM feature_labels
LEFT JOIN attention_sae USING (study, layer)
WHERE study = getvariable('study') AND (feature < d_sae) IS NOT TRUE;
