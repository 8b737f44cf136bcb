-- What do the heads with a role attend to in held-out text, at their most decided?
SELECT
    r.layer,
    r.head,
    r.role,
    e.destination_token,
    e.source_token,
    e.destination - e.source AS tokens_back,
    round(e.attention, 3) AS attention,
    e.sequence
FROM head_roles AS r
JOIN head_attention_examples AS e USING (study, layer, head)
WHERE r.study = coalesce(getvariable('study'), 'organism') AND e.rank = 0
ORDER BY r.role, r.value DESC
LIMIT 20;
