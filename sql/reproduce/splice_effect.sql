-- Share of the logit difference that is kept when SAE reconstructions replace z, against mean ablation
-- Keys: a layer, or layers at once, such as L0 and L0+L3.
SELECT
    regexp_extract(intervention, '^(?:set:splice|splice:sae):(.+):all:vs-mean_counterfactual$', 1) AS key,
    recovered_from_ablated AS value
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND metric = 'logit_diff'
    AND regexp_matches(intervention, '^(set:splice|splice:sae):.+:all:vs-mean_counterfactual$')
ORDER BY key;
