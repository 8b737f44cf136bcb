-- How much of each token lies in what the keys of the most frequent nodes of the trace read.
SELECT
    'L' || t.layer || 'H' || t.head || ' ' || t.destination_role || ' → ' || t.source_role AS node,
    row_number() OVER (
        PARTITION BY t.layer, t.head, t.destination_role, t.source_role
        ORDER BY t.mean_projection DESC, t.token_id
    ) AS place,
    v.token,
    t.mean_projection,
    t.sd_projection,
    t.at_source,
    t.source_role,
    t.n
FROM attention_token_norms AS t
JOIN vocabulary AS v USING (study, token_id)
JOIN (
    SELECT layer, head, destination_role, source_role, max(n_pairs) AS n_pairs
    FROM attention_consensus
    WHERE study = $study AND task = $task
    GROUP BY ALL
    ORDER BY n_pairs DESC, layer, head, destination_role, source_role
    LIMIT 6
) AS c USING (layer, head, destination_role, source_role)
WHERE t.study = $study AND t.task = $task
ORDER BY c.n_pairs DESC, node, place;
