-- Precision and recall of the traced heads against published circuits, at the published filter of 170 of 256
-- Keys: rule, what is counted, reference list, precision or recall.
-- statistic: precision and recall of nodes, by rule and count
-- position: all traced pairs
-- weights: processed
-- prompts: this project's
-- rule: heads in at least 170 of 256 prompts, or as many paths
-- run: model, bos, firing, roots
WITH agreement AS (
    SELECT trace_rule || ', ' || counted || ', ' || head_list AS name, "precision", recall
    FROM trace_summary
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND task = 'ioi' AND head_list IS NOT NULL AND min_share BETWEEN 0.66 AND 0.67
)
SELECT name || ': precision' AS key, "precision" AS value FROM agreement
UNION ALL
SELECT name || ': recall', recall FROM agreement
ORDER BY key;
