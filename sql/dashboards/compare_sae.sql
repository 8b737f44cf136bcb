-- How much of one SAE is in the other.
SELECT
    study,
    layer,
    other_study,
    other_layer,
    compared,
    space,
    n_features,
    n_alive_pairs,
    mean_matched_cosine,
    random_mean_cosine,
    share_above_07,
    share_above_09,
    mean_example_overlap
FROM sae_matching_summary
WHERE (study = $study AND layer = $layer AND other_study = $other AND other_layer = $other_layer)
   OR (study = $other AND layer = $other_layer AND other_study = $study AND other_layer = $layer)
ORDER BY compared, study, layer;
