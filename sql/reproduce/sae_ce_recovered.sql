-- CE loss recovered by an SAE against zero ablation, by layer
-- statistic: 1 - (CE spliced - CE clean) / (CE ablated - CE clean)
-- position: every token but BOS and position 0
-- weights: raw
-- reference: zero
-- run: model, bos, corpus, sae
SELECT
    layer::VARCHAR AS key,
    ce_recovered AS value,
    abs(ce_zero - ce_clean) / nullif(abs(ce_clean), 0) AS divisor_share
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
