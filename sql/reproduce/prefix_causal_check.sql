-- Attention to induction cases of real text before and after the longer match is broken, by head
-- statistic: mean attention to the induction source
-- position: corpus cases with attention above 0.3 and a prefix of at least 2
-- rule: heads with induction scores
-- run: model, bos, corpus
SELECT 'L' || layer || 'H' || head || ' before' AS key, attention_before AS value
FROM prefix_induction_intervention
WHERE study = coalesce(getvariable('study'), 'organism') AND edit = 'match'
UNION ALL
SELECT 'L' || layer || 'H' || head || ' after', attention_after
FROM prefix_induction_intervention
WHERE study = coalesce(getvariable('study'), 'organism') AND edit = 'match'
ORDER BY key;
