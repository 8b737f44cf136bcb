-- What does an edge do through its reader alone (local), and through every later reader (global)?
WITH edges AS (
    SELECT *
    FROM edge_mode_comparison
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND metric = 'logit_diff'
        AND occurrence = 'traced'
        AND receiver IS DISTINCT FROM 'qkv'
)
SELECT
    own.edge,
    own.destination_role || ' <- ' || own.source_role AS pair,
    own.side,
    own.n,
    round(own.ablate_effect, 4) AS local_ablate,
    '[' || round(own.ablate_ci_low, 4) || ', ' || round(own.ablate_ci_high, 4) || ']' AS local_ci,
    round(every.ablate_effect, 4) AS global_ablate,
    '[' || round(every.ablate_ci_low, 4) || ', ' || round(every.ablate_ci_high, 4) || ']'
    AS global_ci,
    round(own.random_ablate_effect, 4) AS local_random,
    round(every.random_ablate_effect, 4) AS global_random,
    sign(own.ablate_effect) = sign(every.ablate_effect) AS same_sign,
    round(abs(every.ablate_effect) / nullif(abs(own.ablate_effect), 0), 1) AS global_over_local
FROM edges AS own
INNER JOIN edges AS every
    USING (
        study, upstream_layer, upstream_head, layer, head, destination_role, source_role, side,
        alpha
    )
WHERE own.scope = 'local' AND every.scope = 'global'
ORDER BY abs(own.ablate_effect) DESC NULLS LAST, own.edge, own.side
LIMIT 40;
