-- KL recovered by an SAE against zero ablation, by layer; unlike CE recovered it is stable where ablation costs little
-- statistic: 1 - KL(clean || spliced) / KL(clean || ablated)
-- position: every token but BOS and position 0
-- weights: raw
-- reference: zero
-- run: model, bos, corpus, sae
SELECT layer::VARCHAR AS key, kl_recovered AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
