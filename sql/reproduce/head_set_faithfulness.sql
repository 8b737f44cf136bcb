-- Logit difference that a set of heads keeps alone, as a share of the whole model's
-- statistic: logit difference of the set alone / of the whole model
-- position: all positions
-- weights: processed
-- prompts: this project's
-- reference: mean_counterfactual
-- run: model, bos, counterfactual
SELECT head_set AS key, any_value(m_circuit / nullif(m_full, 0)) AS value
FROM head_set_quality
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi' AND quantity = 'faithfulness' AND subset = 'none' AND seed IS NULL
GROUP BY head_set
ORDER BY key;
