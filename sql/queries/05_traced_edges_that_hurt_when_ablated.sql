-- Which traced edges hurt IOI most when ablated, against random slices, and which features does their upstream head write?
WITH edges AS (
    SELECT *
    FROM edge_ablation_vs_control
    WHERE study = coalesce(getvariable('study'), 'organism') AND metric = 'logit_diff'
),
features AS (
    SELECT
        study,
        layer AS upstream_layer,
        head AS upstream_head,
        list(feature ORDER BY attribution DESC)[:3] AS upstream_head_writes
    FROM feature_head_attribution
    GROUP BY ALL
)
SELECT
    'L' || upstream_layer || 'H' || upstream_head AS upstream,
    'L' || layer || 'H' || head AS downstream,
    side,
    scope,
    occurrence,
    n,
    round(mean_effect, 3) AS effect,
    round(control_mean_effect, 3) AS control_effect,
    upstream_head_writes
FROM edges
LEFT JOIN features USING (study, upstream_layer, upstream_head)
WHERE mode = 'ablate'
ORDER BY mean_effect
LIMIT 20;
