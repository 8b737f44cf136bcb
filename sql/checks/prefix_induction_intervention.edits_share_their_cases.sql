-- All edits of a head are made of the same cases
SELECT layer, head, count(DISTINCT (n, n_attended, n_editable)) AS n_different
FROM prefix_induction_intervention
WHERE study = getvariable('study')
GROUP BY ALL
HAVING n_different <> 1 OR count(*) <> 3;
