-- ce_recovered is 1 - (ce_spliced - ce_clean) / (ce_zero - ce_clean); all variants were trained and
-- measured on the same tokens
SELECT * FROM (
    SELECT
        sae_variant, ce_recovered, ce_clean, ce_spliced, ce_zero, n_tokens, training_tokens,
        max((n_tokens, training_tokens)) OVER () AS of_another
    FROM sae_frontier
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE (
    (n_tokens, training_tokens) = of_another
    AND (ce_recovered IS NULL OR abs((1 - ce_recovered) * (ce_zero - ce_clean) - (ce_spliced - ce_clean)) <= 1e-6)
) IS NOT TRUE;
