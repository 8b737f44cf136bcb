-- What does every head do: its roles, and the score that is furthest above its threshold?
SELECT
    t.layer || '.' || t.head AS head,
    any_value(m.roles) AS roles,
    arg_max(t.score, t.value / nullif(t.threshold, 0)) FILTER (WHERE t.value > 0) AS nearest_score,
    round(max(t.value / nullif(t.threshold, 0)), 2) AS of_its_threshold
FROM head_score_tests AS t
JOIN head_score_matrix AS m USING (study, layer, head)
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY t.layer, t.head
ORDER BY t.layer, t.head;
