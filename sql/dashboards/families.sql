SELECT family, measure, value, n, null_value, threshold, meets_threshold, required, text
FROM feature_families
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY family, measure;
