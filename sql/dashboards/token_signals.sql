-- What tokens carry along the consensus slices of the most frequent nodes of the trace, by role.
SELECT
    'L' || s.layer || 'H' || s.head || ' ' || s.destination_role || ' → ' || s.source_role AS node,
    s.destination_role,
    s.source_role,
    s.side,
    s.position_role,
    s.mean_signal,
    s.sd_signal,
    s.n_dimensions,
    s.n
FROM attention_token_signal AS s
JOIN (
    SELECT layer, head, destination_role, source_role, max(n_pairs) AS n_pairs
    FROM attention_consensus
    WHERE study = $study AND task = 'ioi'
    GROUP BY ALL
) AS c USING (layer, head, destination_role, source_role)
WHERE s.study = $study AND s.task = 'ioi'
ORDER BY c.n_pairs DESC, node, s.side, s.position_role;
