-- Size of the traced IOI circuit before filtering, by rule of the trace
-- Keys: rule and nodes, heads, communication edges, attention edges, or edges (both kinds). fc24_code
-- is counted as published: nodes and edges of trace_published.
-- statistic: nodes, heads and edges before filtering, by rule
-- position: all traced pairs
-- weights: processed
-- prompts: this project's
-- run: model, bos, firing, roots
WITH size AS (
    SELECT DISTINCT trace_rule, n_nodes, n_kept_heads, n_communication_edges, n_attention_edges
    FROM trace_summary
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND task = 'ioi' AND min_share = 0
        AND counted = if(trace_rule = 'fc24_code', 'published', 'prompts')
)
SELECT trace_rule || ' ' || part AS key, value::DOUBLE AS value
FROM (
    SELECT trace_rule, unnest(
        [
            {part: 'nodes', value: n_nodes},
            {part: 'heads', value: n_kept_heads},
            {part: 'communication edges', value: n_communication_edges},
            {part: 'attention edges', value: n_attention_edges},
            {part: 'edges', value: n_communication_edges + n_attention_edges}
        ],
        recursive := true
    )
    FROM size
)
ORDER BY key;
