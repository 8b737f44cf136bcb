-- Which features fire most often on the names of the IOI prompts, and which heads write them?
WITH names AS (
    SELECT DISTINCT study, io_token_id AS token_id
    FROM ioi_prompts
    WHERE study = coalesce(getvariable('study'), 'organism')
),
on_names AS (
    SELECT study, layer, feature, avg((n.token_id IS NOT NULL)::INT) AS share_on_names
    FROM feature_top_examples
    LEFT JOIN names AS n USING (study, token_id)
    WHERE study = coalesce(getvariable('study'), 'organism')
    GROUP BY ALL
)
SELECT
    layer,
    feature,
    round(share_on_names, 2) AS share_on_names,
    s.n_active,
    arg_max(a.head, a.attribution) AS top_head,
    round(max(a.attribution), 2) AS head_attribution
FROM on_names
JOIN feature_statistics AS s USING (study, layer, feature)
JOIN feature_head_attribution AS a USING (study, layer, feature)
WHERE share_on_names > 0
GROUP BY ALL
ORDER BY share_on_names DESC, s.n_active DESC
LIMIT 20;
