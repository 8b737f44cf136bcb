-- Size of the traced IOI circuit before filtering, by rule of the trace
-- Keys: rule and nodes, heads, communication edges, attention edges, or edges (both kinds).
WITH size AS (
    SELECT DISTINCT variant, n_nodes, n_heads, n_communication_edges, n_attention_edges
    FROM ioi_trace_summary
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND task = 'ioi' AND counted = 'prompts' AND min_share = 0
)
SELECT variant || ' ' || part AS key, value::DOUBLE AS value
FROM (
    SELECT variant, unnest(
        [
            {part: 'nodes', value: n_nodes},
            {part: 'heads', value: n_heads},
            {part: 'communication edges', value: n_communication_edges},
            {part: 'attention edges', value: n_attention_edges},
            {part: 'edges', value: n_communication_edges + n_attention_edges}
        ],
        recursive := true
    )
    FROM size
)
ORDER BY key;
