-- KL recovered by an SAE against zero ablation, by layer; unlike CE recovered it is stable where ablation costs little
SELECT layer::VARCHAR AS key, kl_recovered AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
