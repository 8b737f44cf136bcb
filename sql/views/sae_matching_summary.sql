CREATE VIEW sae_matching_summary AS
SELECT
    study,
    layer,
    other_study,
    other_layer,
    other_sae,
    compared,
    space,
    count(*) AS n_features,
    count(*) FILTER (WHERE n_active > 0) AS n_alive,
    count(*) FILTER (WHERE n_active > 0 AND matched_n_active > 0) AS n_alive_pairs,
    avg(matched_cosine) AS mean_matched_cosine,
    avg(matched_cosine) FILTER (WHERE n_active > 0 AND matched_n_active > 0) AS mean_matched_cosine_alive,
    min(random_mean_cosine) AS random_mean_cosine,
    avg((matched_cosine > 0.7)::INT) FILTER (WHERE n_active > 0 AND matched_n_active > 0)
        AS share_above_07,
    avg((matched_cosine > 0.9)::INT) FILTER (WHERE n_active > 0 AND matched_n_active > 0)
        AS share_above_09,
    avg(example_overlap) FILTER (WHERE n_active > 0 AND matched_n_active > 0)
        AS mean_example_overlap,
    median(abs(density_shift)) AS median_density_shift
FROM sae_matching
GROUP BY ALL;
COMMENT ON VIEW sae_matching_summary IS 'One row per comparison of two SAEs: how much of one is in the other.';
COMMENT ON COLUMN sae_matching_summary.n_features IS 'Features of this SAE';
COMMENT ON COLUMN sae_matching_summary.n_alive IS 'Of these, features that fired';
COMMENT ON COLUMN sae_matching_summary.n_alive_pairs IS 'Matched pairs of which both fired';
COMMENT ON COLUMN sae_matching_summary.mean_matched_cosine IS 'Mean cosine over all matched pairs (mean matched cosine)';
COMMENT ON COLUMN sae_matching_summary.mean_matched_cosine_alive IS 'The same over pairs of which both fired';
COMMENT ON COLUMN sae_matching_summary.random_mean_cosine IS 'The same for random directions of the same shapes';
COMMENT ON COLUMN sae_matching_summary.share_above_07 IS 'Share of the pairs of which both fired with a cosine above 0.7';
COMMENT ON COLUMN sae_matching_summary.share_above_09 IS 'The same above 0.9';
COMMENT ON COLUMN sae_matching_summary.mean_example_overlap IS 'Mean Jaccard index of top examples over pairs of which both fired; NULL on different corpora';
COMMENT ON COLUMN sae_matching_summary.median_density_shift IS 'Median size of the difference of log10 densities, pairs of which both fired';
