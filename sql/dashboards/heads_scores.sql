SELECT score, layer, head, value, threshold, passes
FROM head_score_tests
WHERE study = $study AND threshold IS NOT NULL
ORDER BY score, layer, head;
