-- Which heads carry the IOI trace, on how many prompts, and which roles do they have?
SELECT
    g.upstream_layer AS layer,
    g.upstream_head AS head,
    sum(g.n_prompts) AS prompt_edges,
    count(*) AS n_edges,
    round(sum(g.mean_contribution * g.n_pairs), 1) AS total_contribution,
    any_value(m.roles_of_head) AS roles
FROM trace_graph AS g
LEFT JOIN head_score_matrix AS m
    ON m.study = g.study AND m.layer = g.upstream_layer AND m.head = g.upstream_head
WHERE g.study = coalesce(getvariable('study'), 'organism') AND g.task = 'ioi' AND g.upstream_head IS NOT NULL
GROUP BY ALL
ORDER BY total_contribution DESC
LIMIT 20;
