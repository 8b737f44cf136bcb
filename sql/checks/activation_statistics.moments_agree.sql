-- Moments of z that bound each other do: the norm of the mean is at most the mean norm, and that at
-- most sqrt(d_head) times rms; mean_z has d_head values
SELECT head, sqrt(list_inner_product(mean_z, mean_z)) AS norm_of_mean, mean_norm, rms, d_head
FROM activation_statistics
JOIN language_model USING (study)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (
    len(mean_z) = d_head
    AND norm_of_mean <= mean_norm * 1.0001
    AND mean_norm <= sqrt(d_head) * rms * 1.0001
) IS NOT TRUE;
