-- Features of an SAE active per held-out token, by layer
SELECT layer::VARCHAR AS key, l0 AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
