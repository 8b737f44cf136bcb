-- Every method and rule scores all edges, numbered from 0 without gaps, the same ones
SELECT * FROM (
    SELECT *, max(n_edges) OVER (PARTITION BY task) AS most
    FROM (
        SELECT task, method, rule, count(*) AS n_edges, max(edge_number) + 1 AS n_numbers
        FROM edge_attribution
        WHERE study = getvariable('study')
        GROUP BY ALL
    )
)
WHERE (n_edges = n_numbers AND n_edges = most) IS NOT TRUE;
