-- What does the traced circuit look like in its upper half alone (FC24's code draws layers 7 and later of 12)?
SELECT
    'L' || upstream_layer || 'H' || upstream_head AS from_head,
    'L' || downstream_layer || 'H' || downstream_head AS to_head,
    destination_role || ' -> ' || source_role AS pair,
    side,
    written_role,
    n_prompts,
    round(mean_contribution, 2) AS mean_contribution,
    round(mean_head_share, 2) AS mean_head_share
FROM trace_graph
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
    AND upstream_layer >= (
        SELECT any_value(n_layers) // 2
        FROM language_model
        WHERE study = coalesce(getvariable('study'), 'organism')
    )
ORDER BY n_prompts DESC, mean_contribution DESC, from_head, to_head, pair, side
LIMIT 24;
