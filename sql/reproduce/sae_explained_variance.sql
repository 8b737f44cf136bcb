-- Variance of z on held-out tokens that an SAE explains, by layer
SELECT layer::VARCHAR AS key, explained_variance AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
