-- How much of the clean logit difference does each patched run recover, from its corrupt run and from an ablated one?
SELECT
    task,
    intervention,
    source_variant,
    n,
    round(mean_clean, 2) AS clean,
    round(mean_corrupt, 2) AS corrupt,
    round(mean_ablated, 2) AS ablated,
    round(mean_patched, 2) AS patched,
    round(recovered, 3) AS recovered,
    round(recovered_ci_low, 3) AS ci_low,
    round(recovered_ci_high, 3) AS ci_high,
    round(recovered_from_ablated, 3) AS recovered_from_ablated
FROM intervention_recovery
WHERE study = coalesce(getvariable('study'), 'organism')
    AND metric = 'logit_diff'
ORDER BY task, recovered NULLS LAST, intervention
LIMIT 50;
