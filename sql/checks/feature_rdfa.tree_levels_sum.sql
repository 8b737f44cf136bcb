-- The parts of every node of a recursive attribution tree sum to it (error relative to the sum of
-- their sizes), and lie one level below
SELECT w.feature, w.rank, w.node, w.dfa, p.total, p.size
FROM feature_rdfa AS w
JOIN (
    SELECT
        feature, rank, parent AS node,
        sum(dfa) AS total,
        sum(abs(dfa)) AS size,
        min(depth) AS least_depth,
        max(depth) AS most_depth
    FROM feature_rdfa
    WHERE study = getvariable('study') AND layer = getvariable('layer') AND parent IS NOT NULL
    GROUP BY ALL
) AS p USING (feature, rank, node)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (
    abs(total - dfa) <= (1e-3 + 8 * getvariable('model.rounding')) * size AND least_depth = depth + 1 AND most_depth = depth + 1
) IS NOT TRUE;
