SELECT
    task,
    destination_role,
    source_role,
    n_prompts,
    mean_attention,
    mean_destination_head_share,
    mean_source_head_share,
    is_root
FROM trace_nodes
WHERE
    study = $study AND layer = $layer AND head = $head
    AND (task, trace_rule) IN (SELECT DISTINCT task, trace_rule FROM trace_graph WHERE study = $study)
ORDER BY task, n_prompts DESC;
