SELECT
    layer,
    sae_variant,
    l0,
    ce_recovered,
    ce_recovered_mean,
    explained_variance,
    kl,
    dead_fraction
FROM sae_frontier
WHERE study = $study
ORDER BY layer, architecture, l0;
