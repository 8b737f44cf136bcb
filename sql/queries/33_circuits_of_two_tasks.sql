-- How alike are the traced circuits of two tasks, in edges and in heads, and what would chance give?
WITH edges AS (
    SELECT DISTINCT
        g.study,
        g.task,
        'L' || g.upstream_layer || 'H' || g.upstream_head AS upstream,
        'L' || g.downstream_layer || 'H' || g.downstream_head AS downstream,
        g.side
    FROM trace_graph AS g
    JOIN (SELECT DISTINCT study, task, n_prompts AS of FROM trace_summary) AS s USING (study, task)
    WHERE g.study = coalesce(getvariable('study'), 'organism') AND g.n_prompts >= 0.05 * s.of
),
parts AS (
    SELECT study, task, 'edges' AS what, upstream || ' ' || downstream || ' ' || side AS part FROM edges
    UNION
    SELECT study, task, 'heads' AS what, upstream AS part FROM edges
    UNION
    SELECT study, task, 'heads' AS what, downstream AS part FROM edges
),
counts AS (
    SELECT
        p.study,
        p.task,
        p.what,
        count(*) AS n,
        -- Heads of the model; ordered pairs of heads in different layers, on two sides.
        CASE p.what
            WHEN 'heads' THEN any_value(m.n_layers * m.n_heads)
            ELSE any_value(m.n_layers * (m.n_layers - 1) * m.n_heads ** 2)
        END AS possible
    FROM parts AS p
    JOIN language_model AS m USING (study)
    GROUP BY p.study, p.task, p.what
)
SELECT
    a.task AS task_a,
    b.task AS task_b,
    a.what,
    a.n AS n_a,
    b.n AS n_b,
    count(q.part) AS shared,
    round(a.n * b.n / a.possible, 1) AS shared_by_chance,
    round(count(q.part) / (a.n + b.n - count(q.part)), 2) AS jaccard
FROM counts AS a
JOIN counts AS b ON a.what = b.what AND a.task < b.task
LEFT JOIN parts AS p ON p.task = a.task AND p.what = a.what
LEFT JOIN parts AS q ON q.task = b.task AND q.what = p.what AND q.part = p.part
GROUP BY a.task, b.task, a.what, a.n, b.n, a.possible
ORDER BY a.what, jaccard DESC;
