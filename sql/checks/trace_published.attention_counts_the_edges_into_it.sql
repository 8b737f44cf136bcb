-- An attention edge counts what the communication edges into its node count
SELECT task, downstream_layer, downstream_head, written_role, counted, into_it
FROM (
    SELECT task, downstream_layer, downstream_head, written_role,
        sum(published_count) FILTER (edge_kind = 'attention') AS counted,
        sum(published_count) FILTER (edge_kind = 'communication') AS into_it
    FROM trace_published
    WHERE study = getvariable('study')
    GROUP BY ALL
)
WHERE (abs(counted - into_it) <= 1e-6 * into_it) IS NOT TRUE;
