CREATE VIEW intervention_recovery AS
SELECT
    study,
    task,
    intervention,
    kind,
    mode,
    reference,
    site,
    layer,
    head,
    position_role,
    senders,
    receiver,
    receivers,
    via_mlp,
    source_variant,
    ablated_run,
    metric,
    n,
    mean_clean,
    mean_corrupt,
    mean_ablated,
    mean_patched,
    recovered,
    recovered_ci_low,
    recovered_ci_high,
    recovered_from_ablated,
    recovered_from_ablated_ci_low,
    recovered_from_ablated_ci_high
FROM intervention_summary
WHERE mean_corrupt IS NOT NULL OR mean_ablated IS NOT NULL;
COMMENT ON VIEW intervention_recovery IS 'One row per intervention and metric that has a corrupt or an ablated run: fractions recovered, of means over prompts, with 95% bootstrap intervals. By corrupt: (patched - corrupt) / (clean - corrupt); by an ablation, as in Kissane et al. 2024: (patched - ablated) / (clean - ablated).';
COMMENT ON COLUMN intervention_recovery.recovered IS 'Of corrupt: 1 as good as clean, 0 as bad as the counterfactual';
COMMENT ON COLUMN intervention_recovery.recovered_from_ablated IS 'Of the ablation: 1 as good as clean, 0 as bad as the run ablated_run';
