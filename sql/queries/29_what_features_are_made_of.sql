-- What is each feature made of, once its attention is followed back: tokens, MLPs, earlier features?
WITH leaves AS (
    -- What is not split further; together these are the whole pre-activation.
    SELECT
        layer,
        feature,
        rank,
        CASE
            WHEN node_kind LIKE '%\_bias' ESCAPE '\' THEN 'bias'
            WHEN node_kind IN ('source', 'residual_feature', 'attention', 'rest') THEN 'not followed'
            WHEN node_kind LIKE '%\_error' ESCAPE '\' THEN 'error'
            ELSE node_kind
        END AS ends_in,
        share_of_root
    FROM feature_rdfa
    WHERE study = coalesce(getvariable('study'), 'organism') AND identity_error IS NULL
),
upstream AS (
    SELECT
        layer,
        feature,
        rank,
        arg_max('L' || at_layer || 'F' || at_feature, abs(share_of_root)) AS strongest,
        max_by(share_of_root, abs(share_of_root)) AS share
    FROM feature_rdfa
    WHERE
        study = coalesce(getvariable('study'), 'organism')
        AND node_kind = 'feature'
        AND parent IS NOT NULL
    GROUP BY ALL
)
SELECT
    'L' || layer || 'F' || feature AS feature,
    round(sum(share_of_root) FILTER (ends_in = 'embedding'), 2) AS token_embeddings,
    round(sum(share_of_root) FILTER (ends_in = 'position'), 2) AS positions,
    round(sum(share_of_root) FILTER (ends_in = 'mlp'), 2) AS mlps,
    round(sum(share_of_root) FILTER (ends_in = 'feature'), 2) AS earlier_features,
    round(sum(share_of_root) FILTER (ends_in = 'error'), 2) AS sae_errors,
    round(sum(share_of_root) FILTER (ends_in = 'bias'), 2) AS biases,
    round(sum(share_of_root) FILTER (ends_in = 'not followed'), 2) AS not_followed,
    any_value(strongest) AS strongest_earlier_feature,
    round(any_value(share), 2) AS its_share
FROM leaves
LEFT JOIN upstream USING (layer, feature, rank)
WHERE rank = 0
GROUP BY layer, leaves.feature
ORDER BY abs(coalesce(its_share, 0)) DESC, layer, leaves.feature;
