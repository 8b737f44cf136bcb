-- Share of the logit difference that is kept when SAE reconstructions replace z, against mean ablation
-- Keys: a layer, or layers at once, such as L0 and L0+L3.
-- statistic: (spliced - ablated) / (clean - ablated), of means over prompts of the logit difference
-- position: all positions
-- weights: raw
-- prompts: this project's
-- reference: mean_counterfactual
-- run: model, bos, sae
SELECT
    regexp_extract(intervention, '^(?:set:splice|splice:sae):(.+):all:vs-mean_counterfactual$', 1) AS key,
    recovered_from_ablated AS value,
    abs(mean_clean - mean_ablated) / nullif(abs(mean_clean), 0) AS divisor_share
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND metric = 'logit_diff'
    AND regexp_matches(intervention, '^(set:splice|splice:sae):.+:all:vs-mean_counterfactual$')
ORDER BY key;
