-- Share of the labelled heads in each class of polysemanticity, all raters together
SELECT class AS key, class_share AS value
FROM head_label_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND layer IS NULL AND rater IS NULL
ORDER BY key;
