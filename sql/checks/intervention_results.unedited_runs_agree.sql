-- A prompt's unedited run has one value per metric and weights, whatever is edited afterwards (batches
-- of other sizes round otherwise)
SELECT task, prompt, metric, weights, min(clean) AS least, max(clean) AS most
FROM intervention_results
WHERE study = getvariable('study') AND metric <> 'attn_score' AND clean IS NOT NULL
GROUP BY ALL
HAVING (most - least <= (1e-3 + 8 * getvariable('model.rounding')) * (1 + abs(most))) IS NOT TRUE;
