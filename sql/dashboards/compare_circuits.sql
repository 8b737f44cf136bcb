-- Traced circuits of two studies: edges of each, and edges that both have.
WITH edges AS (
    SELECT
        study,
        task,
        (upstream_layer, upstream_head, downstream_layer, downstream_head, destination_role, source_role, side) AS edge,
        n_prompts
    FROM trace_graph
    WHERE study IN ($study, $other)
)
SELECT
    task,
    count(a.edge) AS edges,
    count(b.edge) AS other_edges,
    count(*) FILTER (a.edge IS NOT NULL AND b.edge IS NOT NULL) AS edges_of_both,
    count(*) FILTER (a.edge IS NOT NULL AND b.edge IS NOT NULL) / count(*) AS jaccard
FROM (FROM edges WHERE study = $study) AS a
FULL JOIN (FROM edges WHERE study = $other) AS b USING (task, edge)
GROUP BY task
ORDER BY task;
