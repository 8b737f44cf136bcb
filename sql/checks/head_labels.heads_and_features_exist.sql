-- Labelled heads are heads of the model, and labelled features are features of the layer's SAE
SELECT layer, head, feature, rater
FROM head_labels
JOIN language_model USING (study)
LEFT JOIN attention_sae USING (study, layer)
WHERE study = getvariable('study') AND (
    layer < n_layers AND head < n_heads AND (feature IS NULL OR feature < d_sae)
) IS NOT TRUE;
