-- Counts are those of the kept edges of trace_edges, and every kept edge is in the graph
SELECT
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side, written_role, g.n_prompts, e.n_prompts AS counted_prompts, g.n_pairs, e.n_pairs AS counted_pairs
FROM (SELECT * FROM trace_graph WHERE study = getvariable('study')) AS g
FULL JOIN (
    SELECT
        task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
        source_role, side, written_role,
        count(DISTINCT prompt) AS n_prompts,
        count(DISTINCT (prompt, destination, source)) AS n_pairs,
        sum(path_multiplicity) AS paths
    FROM trace_edges
    WHERE study = getvariable('study') AND kept
    GROUP BY ALL
) AS e USING (
    task, upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role,
    source_role, side, written_role
)
WHERE (
    g.n_prompts = counted_prompts
    AND g.n_pairs = counted_pairs
    AND abs(path_multiplicity - paths) <= 1e-6 * paths
) IS NOT TRUE;
