SELECT
    task,
    upstream_layer,
    upstream_head,
    downstream_layer,
    downstream_head,
    destination_role,
    source_role,
    side,
    n_prompts,
    mean_contribution,
    mean_contribution_share,
    mean_head_share,
    mean_exact_effect
FROM trace_graph
WHERE
    study = $study
    AND ($layer, $head) IN ((upstream_layer, upstream_head), (downstream_layer, downstream_head))
ORDER BY task, n_prompts DESC, mean_contribution DESC;
