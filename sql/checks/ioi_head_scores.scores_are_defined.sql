-- Every score is defined in head_score_definitions
SELECT DISTINCT score
FROM ioi_head_scores
WHERE study = getvariable('study') AND (score IN (SELECT score FROM head_score_definitions)) IS NOT TRUE;
