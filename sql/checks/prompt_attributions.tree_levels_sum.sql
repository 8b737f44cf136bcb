-- The parts of every node of a tree of a prompt sum to it (error relative to the sum of their sizes),
-- and lie one level below
SELECT w.prompt_set, w.prompt_number, w.tree, w.node, w.path_contribution, p.total, p.size
FROM prompt_attributions AS w
JOIN (
    SELECT
        prompt_set, prompt_number, tree, parent AS node,
        sum(path_contribution) AS total,
        sum(abs(path_contribution)) AS size,
        min(depth) AS least_depth,
        max(depth) AS most_depth
    FROM prompt_attributions
    WHERE study = getvariable('study') AND parent IS NOT NULL
    GROUP BY ALL
) AS p USING (prompt_set, prompt_number, tree, node)
WHERE study = getvariable('study') AND (
    abs(total - path_contribution) <= (1e-3 + 8 * getvariable('model.rounding')) * size AND least_depth = depth + 1 AND most_depth = depth + 1
) IS NOT TRUE;
