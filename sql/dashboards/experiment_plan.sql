-- What of the study's interventions is run in another form than it is named, or left out, and why.
SELECT
    decision,
    asked_by,
    task,
    reason,
    count(intervention) AS n_interventions,
    min(intervention) AS example
FROM intervention_plan
WHERE study = $study AND decision <> 'run'
GROUP BY ALL
ORDER BY decision DESC, asked_by, task, reason;
