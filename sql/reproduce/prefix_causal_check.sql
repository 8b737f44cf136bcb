-- Attention to induction cases of real text before and after the longer match is broken, by head
SELECT layer || '.' || head || ' before' AS key, attention_before AS value
FROM prefix_induction_intervention
WHERE study = coalesce(getvariable('study'), 'organism') AND edit = 'match'
UNION ALL
SELECT layer || '.' || head || ' after', attention_after
FROM prefix_induction_intervention
WHERE study = coalesce(getvariable('study'), 'organism') AND edit = 'match'
ORDER BY key;
