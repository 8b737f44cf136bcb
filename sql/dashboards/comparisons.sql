-- Pairs of SAEs that were compared.
SELECT DISTINCT study, layer, other_study, other_layer, compared, mean_matched_cosine, random_mean_cosine
FROM sae_matching_summary
WHERE compared IN ('study', 'layer')
ORDER BY study, layer, other_study, other_layer;
