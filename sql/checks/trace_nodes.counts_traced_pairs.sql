-- Nodes of the main rule count the traced pairs of attention_slices
SELECT task, trace_rule, layer, head, destination_role, source_role, n.n_pairs, s.n_pairs AS counted
FROM (
    SELECT * FROM trace_nodes
    WHERE study = getvariable('study') AND trace_rule IN (
        SELECT trace_rule FROM trace_roots WHERE study = getvariable('study')
    ) AND source_role IS NOT NULL
) AS n
FULL JOIN (
    SELECT
        task, trace_rule, layer, head, destination_role, source_role,
        count(*) AS n_pairs,
        count(DISTINCT prompt) AS n_prompts
    FROM attention_slices
    WHERE study = getvariable('study') AND path_multiplicity > 0
    GROUP BY ALL
) AS s USING (task, trace_rule, layer, head, destination_role, source_role)
WHERE (n.n_pairs = counted AND n.n_prompts = s.n_prompts) IS NOT TRUE;
