-- Which edges carry the task most, by exact patching and by gradients, and which of them did the trace find?
WITH edges AS (
    SELECT
        task,
        source_kind || coalesce(' L' || source_layer, '') || coalesce('H' || source_head, '') AS source,
        receiver_input || coalesce(' L' || receiver_layer, '') || coalesce('H' || receiver_head, '') AS receiver,
        source_layer,
        source_head,
        receiver_input,
        receiver_layer,
        receiver_head,
        any_value(exact) AS exact,
        any_value(attribution_score) FILTER (method = 'eap') AS eap,
        any_value(attribution_score) FILTER (method = 'eap_ig') AS eap_ig
    FROM edge_attribution
    WHERE study = coalesce(getvariable('study'), 'organism') AND rule IN ('clean', 'library')
    GROUP BY ALL
),
traced AS (
    SELECT
        task,
        upstream_layer AS source_layer,
        upstream_head AS source_head,
        CASE side WHEN 'destination' THEN 'q' ELSE 'k' END AS receiver_input,
        downstream_layer AS receiver_layer,
        downstream_head AS receiver_head,
        max(n_prompts) AS traced_in_prompts
    FROM trace_graph
    WHERE study = coalesce(getvariable('study'), 'organism')
    GROUP BY ALL
)
SELECT
    task,
    source,
    receiver,
    round(exact, 3) AS exact,
    round(eap, 3) AS eap,
    round(eap_ig, 3) AS eap_ig,
    traced_in_prompts
FROM edges
LEFT JOIN traced USING (task, source_layer, source_head, receiver_input, receiver_layer, receiver_head)
ORDER BY abs(coalesce(edges.exact, edges.eap_ig)) DESC
LIMIT 30;
