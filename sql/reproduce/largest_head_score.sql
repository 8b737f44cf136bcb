-- Largest value of every score over heads
-- statistic: largest value over heads
-- position: by score: the view head_score_definitions
-- prompts: this project's
-- run: model, bos, corpus
SELECT score AS key, max(value) AS value
FROM (
    FROM head_scores SELECT study, score, value
    UNION ALL
    FROM ioi_head_scores SELECT study, score, value
) AS scores
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY score
ORDER BY key;
