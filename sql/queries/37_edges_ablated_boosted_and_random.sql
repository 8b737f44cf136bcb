-- Do ablating, random slices and boosting come in that order for traced edges (FC24, Fig. 6)?
SELECT
    edge,
    destination_role || ' <- ' || source_role AS pair,
    side,
    scope,
    occurrence,
    n,
    round(ablate_effect, 3) AS ablate,
    round(random_ablate_effect, 3) AS random_ablate,
    round(random_boost_effect, 3) AS random_boost,
    round(boost_effect, 3) AS boost,
    in_order
FROM edge_mode_comparison
WHERE study = coalesce(getvariable('study'), 'organism')
    AND metric = 'logit_diff'
ORDER BY abs(ablate_effect) DESC, edge, scope, occurrence
LIMIT 40;
