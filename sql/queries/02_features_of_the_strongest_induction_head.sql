-- Which SAE features does the strongest induction head of a layer with an SAE write, and what do they predict?
WITH head AS (
    SELECT study, layer, head
    FROM head_scores
    SEMI JOIN attention_sae USING (study, layer)
    WHERE study = coalesce(getvariable('study'), 'organism') AND score = 'induction'
    ORDER BY value DESC
    LIMIT 1
),
top_logits AS (
    SELECT study, layer, feature, list(token ORDER BY rank)[:4] AS predicts
    FROM feature_logit_effects
    WHERE extreme = 'top'
    GROUP BY ALL
)
SELECT
    'L' || head.layer || 'H' || head.head AS head,
    a.feature,
    round(a.attribution, 2) AS head_attribution,
    s.n_active,
    round(s.max_activation, 2) AS max_activation,
    e.token AS top_example_token,
    t.predicts
FROM head
JOIN feature_head_attribution AS a USING (study, layer, head)
JOIN feature_statistics AS s USING (study, layer, feature)
JOIN top_logits AS t USING (study, layer, feature)
JOIN feature_top_examples AS e USING (study, layer, feature)
WHERE e.rank = 0
ORDER BY a.attribution DESC
LIMIT 20;
