-- The subspace has as many dimensions as slices are in the node's consensus
SELECT DISTINCT s.task, s.layer, s.head, s.destination_role, s.source_role, n_dimensions, n_slices
FROM attention_token_signal AS s
LEFT JOIN (
    SELECT
        study, task, layer, head, destination_role, source_role,
        count(*) FILTER (in_consensus) AS n_slices
    FROM attention_consensus
    GROUP BY ALL
) AS c USING (study, task, layer, head, destination_role, source_role)
WHERE study = getvariable('study') AND (n_dimensions = n_slices) IS NOT TRUE;
