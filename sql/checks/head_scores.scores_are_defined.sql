-- Every score is defined in head_score_definitions, and is of a head of the model
SELECT DISTINCT layer, head, score
FROM head_scores
JOIN language_model USING (study)
WHERE study = getvariable('study') AND (
    layer < n_layers
    AND head < n_heads
    AND score IN (SELECT score FROM head_score_definitions)
) IS NOT TRUE;
