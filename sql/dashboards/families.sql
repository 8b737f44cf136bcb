SELECT family, measure, value, n, null_value, threshold, passes, required, text
FROM feature_families
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY family, measure;
