-- What is run has rows in intervention_results
SELECT p.task, p.asked_by, p.intervention, p.decision
FROM intervention_plan AS p
LEFT JOIN (
    SELECT DISTINCT task, intervention FROM intervention_results WHERE study = getvariable('study')
) AS r USING (task, intervention)
WHERE p.study = getvariable('study') AND p.decision <> 'left out' AND r.intervention IS NULL;
