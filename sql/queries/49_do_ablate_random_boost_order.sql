-- In what share of traced edges does ablating hurt and boosting help while random slices do neither (FC24, Fig. 6, 7)?
WITH chosen AS (
    SELECT DISTINCT
        e.study, e.experiment, s.upstream_layer, s.upstream_head, s.layer, s.head,
        s.destination_role, s.source_role, s.side, s.scope, s.receiver, s.occurrence
    FROM intervention_experiments AS e
    INNER JOIN intervention_summary AS s
        ON e.study = s.study AND e.task = s.task AND e.intervention = s.intervention
    WHERE s.kind = 'edge'
)
SELECT
    chosen.experiment,
    chosen.scope,
    chosen.side,
    m.metric,
    count(*) AS edges,
    round(avg(m.n), 1) AS prompts_per_edge,
    round(avg(CAST(m.in_order AS INTEGER)), 2) AS means_in_order,
    round(avg(CAST(m.ablate_lowers AS INTEGER)), 2) AS ablating_hurts,
    round(avg(CAST(m.ablate_raises AS INTEGER)), 2) AS ablating_helps,
    round(avg(CAST(m.boost_raises AS INTEGER)), 2) AS boosting_helps,
    round(avg(CAST(m.boost_lowers AS INTEGER)), 2) AS boosting_hurts,
    round(avg(CAST(m.random_neither AS INTEGER)), 2) AS random_does_neither,
    round(
        avg(CAST(m.ablate_lowers AND m.boost_raises AND m.random_neither AS INTEGER)), 2
    ) AS all_three,
    round(avg(m.ablate_effect), 4) AS ablate,
    round(avg(m.random_ablate_effect), 4) AS random_ablate,
    round(avg(m.random_boost_effect), 4) AS random_boost,
    round(avg(m.boost_effect), 4) AS boost
FROM chosen
INNER JOIN edge_mode_comparison AS m
    ON chosen.study = m.study
    AND chosen.upstream_layer = m.upstream_layer
    AND chosen.upstream_head = m.upstream_head
    AND chosen.layer = m.layer
    AND chosen.head = m.head
    AND chosen.destination_role = m.destination_role
    AND chosen.source_role = m.source_role
    AND chosen.side = m.side
    AND chosen.scope = m.scope
    AND chosen.receiver IS NOT DISTINCT FROM m.receiver
    AND chosen.occurrence = m.occurrence
WHERE chosen.study = coalesce(getvariable('study'), 'organism')
    AND chosen.experiment IN ('fc24_edges_in', 'fc24_edges_out')
    AND m.metric IN ('logit_diff', 'attn_score')
    AND m.boost_effect IS NOT NULL
GROUP BY chosen.experiment, chosen.scope, chosen.side, m.metric
ORDER BY chosen.experiment, m.metric, chosen.scope, chosen.side;
