-- Which heads matter most for IOI when ablated, with intervals over prompts, and what are their scores?
SELECT
    s.layer,
    s.head,
    s.mode,
    s.reference,
    s.n,
    round(s.mean_effect, 3) AS effect_on_logit_diff,
    round(s.ci_low, 3) AS ci_low,
    round(s.ci_high, 3) AS ci_high,
    m.roles_of_head
FROM intervention_summary AS s
JOIN head_score_matrix AS m USING (study, layer, head)
WHERE s.study = coalesce(getvariable('study'), 'organism')
    AND s.kind = 'head_ablation'
    AND s.metric = 'logit_diff'
ORDER BY s.mean_effect
LIMIT 20;
