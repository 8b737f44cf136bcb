SELECT rater, feature, class, label, note
FROM head_labels
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY rater, feature NULLS FIRST;
