SELECT
    s.layer,
    s.head,
    list(DISTINCT r.role) FILTER (WHERE r.role IS NOT NULL) AS roles,
    any_value(e.mean_effect) AS ablation_effect
FROM (SELECT DISTINCT study, layer, head FROM head_scores) AS s
LEFT JOIN head_roles AS r USING (study, layer, head)
LEFT JOIN intervention_summary AS e
    ON (e.study, e.layer, e.head) = (s.study, s.layer, s.head)
    AND (e.task, e.kind, e.mode, e.position_role, e.alpha, e.metric)
    = ('ioi', 'head_ablation', 'zero', 'all', 1, 'logit_diff')
WHERE s.study = $study
GROUP BY s.layer, s.head
ORDER BY s.layer, s.head;
