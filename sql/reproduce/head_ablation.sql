-- Mean change of the IOI logit difference when a head is ablated, the most harmful head by mode
-- statistic: mean over prompts of the change of logit IO - logit S, the most harmful head
-- position: all positions
-- weights: processed
-- prompts: this project's
-- run: model, bos
SELECT mode AS key, min(mean_effect) AS value
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi' AND kind = 'head_ablation' AND metric = 'logit_diff' AND position_role = 'all'
GROUP BY mode
ORDER BY key;
