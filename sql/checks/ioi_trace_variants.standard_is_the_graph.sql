-- The rule standard has the edges of ioi_trace_graph
SELECT
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side, v.n_pairs, g.n_pairs AS in_graph
FROM (SELECT * FROM ioi_trace_variants WHERE study = getvariable('study') AND trace_rule = 'standard') AS v
FULL JOIN (SELECT * FROM ioi_trace_graph WHERE study = getvariable('study')) AS g USING (
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side
)
WHERE (v.n_pairs = in_graph AND v.n_prompts = g.n_prompts) IS NOT TRUE;
