-- Features of one SAE and their partners in the other, the least alike first.
SELECT
    feature,
    matched_feature,
    matched_cosine,
    best_feature,
    best_cosine,
    n_active,
    matched_n_active,
    example_overlap
FROM sae_matching
WHERE study = $study
  AND layer = $layer
  AND other_study = $other
  AND other_layer = $other_layer
  AND compared IN ('study', 'layer')
  AND n_active > 0
ORDER BY matched_cosine NULLS FIRST, feature;
