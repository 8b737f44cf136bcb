-- The SAE is as wide as z_cat, and its architecture is one of sae_architectures
SELECT architecture, d_in, n_heads * d_head AS d_z
FROM attention_sae
JOIN language_model USING (study)
WHERE study = getvariable('study') AND layer = getvariable('layer')
    AND (d_in = d_z AND architecture IN (SELECT architecture FROM sae_architectures)) IS NOT TRUE;
