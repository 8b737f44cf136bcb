-- Edges of the traced circuit of a task, those in the most prompts first.
SELECT *
FROM trace_graph
WHERE study = $study AND task = $task
ORDER BY n_prompts DESC, mean_contribution DESC;
