SELECT *
FROM feature_statistics
WHERE study = $study AND layer = $layer AND feature = $feature;
