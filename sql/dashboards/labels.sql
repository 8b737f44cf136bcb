SELECT rater, verdict, label, note
FROM feature_labels
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY rater;
