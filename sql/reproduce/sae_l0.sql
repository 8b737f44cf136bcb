-- Features of an SAE active per held-out token, by layer
-- statistic: mean number of active features per token
-- position: every token but BOS and position 0
-- weights: raw
-- run: model, bos, corpus, sae
SELECT layer::VARCHAR AS key, l0 AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
