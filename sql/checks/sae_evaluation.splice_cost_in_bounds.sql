-- The splice costs at most 1 - checks.ce_recovered_min of what zero ablation costs, or of 0.05 nats
-- where zero ablation costs less
SELECT
    (ce_spliced - ce_clean) / greatest(ce_zero - ce_clean, 0.05) AS cost,
    1 - getvariable('checks.ce_recovered_min') AS most
FROM sae_evaluation
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (cost <= most) IS NOT TRUE;
