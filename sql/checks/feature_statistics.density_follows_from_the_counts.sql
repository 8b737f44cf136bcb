-- density is n_active / n_tokens, and all features of a layer were read on the same tokens
SELECT * FROM (
    SELECT feature, n_active, n_tokens, density, log10_density, max(n_tokens) OVER () AS n_read
    FROM feature_statistics
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE (
    n_tokens = n_read
    AND (n_tokens = 0 OR abs(density * n_tokens - n_active) <= 1e-6 * n_tokens)
    AND (n_active = 0 OR abs(10 ** log10_density - density) <= 1e-6 * density)
) IS NOT TRUE;
