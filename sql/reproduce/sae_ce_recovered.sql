-- CE loss recovered by an SAE against zero ablation, by layer
SELECT layer::VARCHAR AS key, ce_recovered AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
