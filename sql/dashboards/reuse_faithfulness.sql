-- How well a task is done with the top heads of a task alone.
SELECT
    metric,
    heads_of,
    measured_on,
    faithfulness,
    ci_low,
    ci_high,
    random_faithfulness,
    n_kept,
    held_out,
    n
FROM component_reuse_faithfulness
WHERE study = $study
ORDER BY metric, heads_of, measured_on;
