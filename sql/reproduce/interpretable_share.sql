-- Share of the labelled features that people call interpretable, all raters together, by layer
-- statistic: share of labelled features called interpretable
-- position: none
-- rule: features drawn at random; unsure counts as not interpretable
-- run: model, bos, corpus, sae
SELECT coalesce(layer::VARCHAR, 'all') AS key, interpretable_share AS value
FROM feature_label_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND rater IS NULL
ORDER BY layer;
