-- Variance of z on held-out tokens that an SAE explains, by layer
-- statistic: 1 - residual variance / total variance, both summed over dimensions
-- position: every token but BOS and position 0
-- weights: raw
-- run: model, bos, corpus, sae
SELECT layer::VARCHAR AS key, explained_variance AS value
FROM sae_evaluation
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer;
