-- ce_recovered and kl_recovered are what the losses say, fvu is at least 1 - explained_variance,
-- and every live feature is in a bin of density_counts
SELECT *
FROM (
    SELECT
        ce_recovered, ce_clean, ce_spliced, ce_zero, kl_recovered, kl, kl_zero, explained_variance, fvu,
        list_sum(density_counts) AS in_bins,
        round((1 - dead_fraction) * d_sae) AS alive,
        n_tokens = dead_fraction_tokens AS same_tokens
    FROM sae_evaluation
    LEFT JOIN attention_sae USING (study, layer)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE NOT (
    (ce_recovered IS NULL OR coalesce(abs((1 - ce_recovered) * (ce_zero - ce_clean) - (ce_spliced - ce_clean)) <= 1e-6, false))
    AND (kl_recovered IS NULL OR coalesce(abs((1 - kl_recovered) * kl_zero - kl) <= 1e-6, false))
    AND (fvu IS NULL OR coalesce(fvu >= 1 - explained_variance - 1e-6, false))
    AND (NOT same_tokens OR coalesce(in_bins = alive, false))
);
