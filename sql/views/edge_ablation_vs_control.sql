CREATE VIEW edge_ablation_vs_control AS
WITH effects AS (
    SELECT *, patched - clean AS effect
    FROM intervention_results
    WHERE kind = 'edge'
),
control AS (
    SELECT
        study, prompt, mode, layer, head, upstream_layer, upstream_head, destination_role,
        source_role, side, scope, receiver, occurrence, alpha, metric,
        avg(effect) AS control_effect
    FROM effects
    WHERE is_control
    GROUP BY ALL
),
paired AS (
    SELECT own.*, control.control_effect
    FROM effects AS own
    INNER JOIN control
        ON own.study = control.study
        AND own.prompt = control.prompt
        AND own.mode = control.mode
        AND own.layer = control.layer
        AND own.head = control.head
        AND own.upstream_layer = control.upstream_layer
        AND own.upstream_head = control.upstream_head
        AND own.destination_role = control.destination_role
        AND own.source_role = control.source_role
        AND own.side = control.side
        AND own.scope = control.scope
        AND own.receiver IS NOT DISTINCT FROM control.receiver
        AND own.occurrence IS NOT DISTINCT FROM control.occurrence
        AND own.alpha = control.alpha
        AND own.metric = control.metric
    WHERE NOT own.is_control
)
SELECT
    study,
    'L' || upstream_layer || 'H' || upstream_head || ' > L' || layer || 'H' || head AS edge,
    upstream_layer,
    upstream_head,
    layer,
    head,
    destination_role,
    source_role,
    side,
    mode,
    scope,
    receiver,
    occurrence,
    alpha,
    metric,
    count(*) AS n,
    avg(clean) AS mean_clean,
    avg(effect) AS mean_effect,
    avg(control_effect) AS control_mean_effect,
    avg(effect - control_effect) AS effect_difference,
    stddev_samp(effect - control_effect) / sqrt(count(*)) AS effect_difference_se,
    avg(CAST(abs(effect) > abs(control_effect) AS DOUBLE)) AS share_larger,
    avg(n_slices) AS mean_n_slices
FROM paired
GROUP BY
    study, upstream_layer, upstream_head, layer, head, destination_role, source_role, side,
    mode, scope, receiver, occurrence, alpha, metric;
COMMENT ON VIEW edge_ablation_vs_control IS 'One row per traced edge, edit and metric: its effect beside that of as many random slices, on the prompts that have both (Franco & Crovella 2024, section 5).';
COMMENT ON COLUMN edge_ablation_vs_control.study IS 'Study the row belongs to';
COMMENT ON COLUMN edge_ablation_vs_control.edge IS 'Upstream head > downstream head';
COMMENT ON COLUMN edge_ablation_vs_control.n IS 'Prompts with both the edit and a control';
COMMENT ON COLUMN edge_ablation_vs_control.mean_clean IS 'Mean of the metric in the unedited runs';
COMMENT ON COLUMN edge_ablation_vs_control.mean_effect IS 'Mean of patched - clean for the edge''s own slices';
COMMENT ON COLUMN edge_ablation_vs_control.control_mean_effect IS 'Mean of patched - clean for the random slices, averaged over seeds first';
COMMENT ON COLUMN edge_ablation_vs_control.effect_difference IS 'Mean over prompts of the edge''s effect minus its control''s';
COMMENT ON COLUMN edge_ablation_vs_control.effect_difference_se IS 'Standard error of that difference over prompts';
COMMENT ON COLUMN edge_ablation_vs_control.share_larger IS 'Share of prompts where the edge''s effect is larger than its control''s, both as absolute values';
COMMENT ON COLUMN edge_ablation_vs_control.mean_n_slices IS 'Mean number of slices projected on';
COMMENT ON COLUMN edge_ablation_vs_control.occurrence IS 'kept: on the prompts in which the trace kept the edge; traced: on all in which the reader''s pair was traced';
