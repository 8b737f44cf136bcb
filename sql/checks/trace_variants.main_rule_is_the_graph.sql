-- The main rule has the edges of trace_graph
SELECT
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side, written_role, trace_rule, v.n_pairs, g.n_pairs AS in_graph
FROM (SELECT * FROM trace_variants WHERE study = getvariable('study') AND trace_rule IN (
        SELECT trace_rule FROM trace_roots WHERE study = getvariable('study')
    )) AS v
FULL JOIN (SELECT * FROM trace_graph WHERE study = getvariable('study')) AS g USING (
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side, written_role, trace_rule
)
WHERE (v.n_pairs = in_graph AND v.n_prompts = g.n_prompts) IS NOT TRUE;
