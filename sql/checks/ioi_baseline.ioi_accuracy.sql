-- The model prefers the indirect object on enough base prompts (checks.ioi_accuracy_min)
SELECT avg(prefers_io::INT) AS accuracy, getvariable('checks.ioi_accuracy_min') AS least
FROM ioi_baseline
JOIN ioi_prompts USING (study, prompt)
WHERE study = getvariable('study') AND variant = 'base'
HAVING (count(*) > 0 OR least IS NOT NULL) AND (accuracy >= coalesce(least, 0)) IS NOT TRUE;
