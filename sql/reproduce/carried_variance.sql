-- Variance of a name mover's score at END that features carried from S2 explain, and error terms
-- Keys: mover, carrier, order of names, role of the key, and "8 pairs" (variance explained by the first 8) or "errors"
-- (share of the covariance with the score that pairs with an error term have).
-- statistic: share of the variance of the attention score over prompts
-- position: by key: END -> Name1 or Name2
-- weights: raw
-- prompts: this project's
-- rule: pairs ordered by covariance with the score; key parts by writers unless residual SAEs are given
-- run: model, bos, sae
WITH pairs AS (
    SELECT layer, head, carrier_layer, carrier_head, name_order, source_role,
        '8 pairs' AS part, variance_explained AS value
    FROM qk_carried_summary
    WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
        AND ordered_by = 'covariance' AND n_top_pairs = 8
),
errors AS (
    SELECT layer, head, carrier_layer, carrier_head, name_order, source_role,
        'errors' AS part, sum(covariance_share) AS value
    FROM qk_carried_kinds
    WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
        AND query_kind <> 'not_carried'
        AND (query_kind = 'sae_error' OR key_kind IN ('sae_error', 'residual_error'))
    GROUP BY ALL
)
SELECT
    'L' || layer || 'H' || head || ' by L' || carrier_layer || 'H' || carrier_head || ' ' || name_order || ' '
        || source_role || ': ' || part AS key,
    value
FROM (FROM pairs UNION ALL FROM errors) AS parts
WHERE name_order IS NOT NULL
ORDER BY layer, head, carrier_layer, carrier_head, name_order, source_role, part;
