CREATE VIEW edge_mode_comparison AS
WITH own AS (
    SELECT
        *,
        'L' || upstream_layer || 'H' || upstream_head || ' > L' || layer || 'H' || head AS edge
    FROM intervention_summary
    WHERE kind = 'edge'
)
SELECT
    study,
    edge,
    upstream_layer,
    upstream_head,
    layer,
    head,
    destination_role,
    source_role,
    side,
    scope,
    receiver,
    occurrence,
    alpha,
    metric,
    max(n) AS n,
    max(mean_clean) AS mean_clean,
    max(mean_effect) FILTER (mode = 'ablate') AS ablate_effect,
    max(ci_low) FILTER (mode = 'ablate') AS ablate_ci_low,
    max(ci_high) FILTER (mode = 'ablate') AS ablate_ci_high,
    max(mean_effect) FILTER (mode = 'boost') AS boost_effect,
    max(ci_low) FILTER (mode = 'boost') AS boost_ci_low,
    max(ci_high) FILTER (mode = 'boost') AS boost_ci_high,
    max(control_mean_effect) FILTER (mode = 'ablate') AS random_ablate_effect,
    max(control_ci_low) FILTER (mode = 'ablate') AS random_ablate_ci_low,
    max(control_ci_high) FILTER (mode = 'ablate') AS random_ablate_ci_high,
    max(control_mean_effect) FILTER (mode = 'boost') AS random_boost_effect,
    max(control_ci_low) FILTER (mode = 'boost') AS random_boost_ci_low,
    max(control_ci_high) FILTER (mode = 'boost') AS random_boost_ci_high,
    ablate_effect < coalesce(random_ablate_effect, 0)
    AND coalesce(random_boost_effect, 0) < boost_effect AS in_order,
    ablate_ci_high < 0 AS ablate_lowers,
    ablate_ci_low > 0 AS ablate_raises,
    boost_ci_low > 0 AS boost_raises,
    boost_ci_high < 0 AS boost_lowers,
    random_ablate_ci_low <= 0 AND random_ablate_ci_high >= 0
    AND random_boost_ci_low <= 0 AND random_boost_ci_high >= 0 AS random_neither
FROM own
GROUP BY
    study, edge, upstream_layer, upstream_head, layer, head, destination_role, source_role, side,
    scope, receiver, occurrence, alpha, metric;
COMMENT ON VIEW edge_mode_comparison IS 'One row per traced edge, scope, receiver and metric: effects of ablating and boosting it and of doing so with as many random slices (Franco & Crovella 2024, Fig. 6, 7).';
COMMENT ON COLUMN edge_mode_comparison.edge IS 'Upstream head > downstream head';
COMMENT ON COLUMN edge_mode_comparison.random_ablate_effect IS 'Mean effect of ablating as many slices drawn outside S, where that many are left';
COMMENT ON COLUMN edge_mode_comparison.random_boost_effect IS 'Mean effect of boosting them';
COMMENT ON COLUMN edge_mode_comparison.in_order IS 'For logit_diff: whether ablating lowers and boosting raises it more than random slices do';
COMMENT ON COLUMN edge_mode_comparison.ablate_effect IS 'Mean of patched - clean when the edge is ablated';
COMMENT ON COLUMN edge_mode_comparison.ablate_ci_low IS 'Lower end of its 95% bootstrap interval';
COMMENT ON COLUMN edge_mode_comparison.ablate_ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN edge_mode_comparison.boost_effect IS 'Mean of patched - clean when the edge is boosted';
COMMENT ON COLUMN edge_mode_comparison.boost_ci_low IS 'Lower end of its 95% bootstrap interval';
COMMENT ON COLUMN edge_mode_comparison.boost_ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN edge_mode_comparison.random_ablate_ci_low IS 'Lower end of the 95% bootstrap interval of random_ablate_effect';
COMMENT ON COLUMN edge_mode_comparison.random_ablate_ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN edge_mode_comparison.random_boost_ci_low IS 'Lower end of the 95% bootstrap interval of random_boost_effect';
COMMENT ON COLUMN edge_mode_comparison.random_boost_ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN edge_mode_comparison.ablate_lowers IS 'Whether the whole interval of ablate_effect lies below 0; NULL without an interval (fewer than 2 prompts)';
COMMENT ON COLUMN edge_mode_comparison.ablate_raises IS 'Whether it lies above 0';
COMMENT ON COLUMN edge_mode_comparison.boost_raises IS 'Whether the whole interval of boost_effect lies above 0';
COMMENT ON COLUMN edge_mode_comparison.boost_lowers IS 'Whether it lies below 0';
COMMENT ON COLUMN edge_mode_comparison.random_neither IS 'Whether the intervals of both random effects hold 0; NULL without controls';
COMMENT ON COLUMN edge_mode_comparison.occurrence IS 'kept: on the prompts in which the trace kept the edge; traced: on all in which the reader''s pair was traced';
