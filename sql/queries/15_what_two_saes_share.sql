-- How many features of one SAE does another SAE have too, compared with random directions?
SELECT
    layer,
    compared,
    other_study || ' layer ' || other_layer AS with_sae,
    space,
    n_alive_pairs,
    round(mean_matched_cosine_alive, 3) AS mean_matched_cosine,
    round(random_mean_cosine, 3) AS random_directions,
    round(share_above_07, 3) AS share_above_07,
    round(mean_example_overlap, 3) AS example_overlap,
    round(median_density_shift, 3) AS density_shift
FROM sae_matching_summary
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY layer, compared, with_sae;
