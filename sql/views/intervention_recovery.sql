CREATE VIEW intervention_recovery AS
SELECT
    study,
    task,
    intervention,
    kind,
    mode,
    site,
    layer,
    head,
    position_role,
    senders,
    receiver,
    receivers,
    via_mlp,
    source_variant,
    reference_run,
    metric,
    n,
    mean_clean,
    mean_corrupt,
    mean_reference,
    mean_patched,
    recovered,
    recovered_ci_low,
    recovered_ci_high,
    recovered_reference,
    recovered_reference_ci_low,
    recovered_reference_ci_high
FROM intervention_summary
WHERE mean_corrupt IS NOT NULL OR mean_reference IS NOT NULL;
COMMENT ON VIEW intervention_recovery IS 'One row per intervention and metric that has a corrupt or a reference run: fractions recovered, of means over prompts, with 95% bootstrap intervals. By corrupt: (patched - corrupt) / (clean - corrupt); by reference, as in Kissane et al. 2024: (patched - reference) / (clean - reference).';
COMMENT ON COLUMN intervention_recovery.recovered IS 'Of corrupt: 1 as good as clean, 0 as bad as the counterfactual';
COMMENT ON COLUMN intervention_recovery.recovered_reference IS 'Of reference: 1 as good as clean, 0 as bad as the run reference_run';
