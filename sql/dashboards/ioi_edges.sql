SELECT
    upstream_layer,
    upstream_head,
    downstream_layer,
    downstream_head,
    destination_role,
    source_role,
    side,
    n_prompts,
    mean_contribution_share
FROM trace_graph
WHERE study = $study AND task = 'ioi' AND $layer IN (upstream_layer, downstream_layer)
ORDER BY n_prompts DESC;
