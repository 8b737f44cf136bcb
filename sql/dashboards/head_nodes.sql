SELECT task, destination_role, source_role, n_prompts, mean_attention, is_root
FROM ioi_trace_nodes
WHERE study = $study AND trace_rule = 'standard' AND layer = $layer AND head = $head
ORDER BY task, n_prompts DESC;
