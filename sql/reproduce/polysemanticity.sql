-- Share of the labelled heads in each class of polysemanticity, all raters together
-- statistic: share of labelled heads in a class
-- position: none
-- rule: judgement of people
-- run: model, bos, corpus, sae
SELECT class AS key, class_share AS value
FROM head_label_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND layer IS NULL AND rater IS NULL
ORDER BY key;
