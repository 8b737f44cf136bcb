-- What does every head do: its roles, and all scores in which it is beyond threshold and null?
SELECT
    'L' || t.layer || 'H' || t.head AS head,
    any_value(m.roles_of_head) AS roles,
    list(t.score ORDER BY t.score) FILTER (WHERE t.passes) AS scores_passed
FROM head_score_tests AS t
JOIN head_score_matrix AS m USING (study, layer, head)
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY t.layer, t.head
ORDER BY t.layer, t.head;
