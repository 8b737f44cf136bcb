CREATE VIEW intervention_effects AS
SELECT
    study,
    prompt,
    intervention,
    kind,
    mode,
    site,
    layer,
    head,
    feature,
    position_role,
    upstream_layer,
    upstream_head,
    destination_role,
    source_role,
    side,
    receiver,
    scope,
    is_control,
    alpha,
    seed,
    n_slices,
    metric,
    clean,
    patched,
    patched - clean AS effect,
    (patched - corrupt) / nullif(clean - corrupt, 0) AS recovered_from_corrupt,
    (patched - reference) / nullif(clean - reference, 0) AS recovered_from_reference,
    cosine,
    norm_ratio
FROM intervention_results;
COMMENT ON VIEW intervention_effects IS 'One row per prompt, intervention and metric: what the edit changed. Normalise means, not single prompts: fractions of single prompts blow up where clean and corrupt are close.';
COMMENT ON COLUMN intervention_effects.effect IS 'patched - clean; negative logit_diff and prob, positive loss and kl mean worse at the task';
COMMENT ON COLUMN intervention_effects.recovered_from_corrupt IS '(patched - corrupt) / (clean - corrupt): 1 as good as clean, 0 as bad as corrupt; NULL without a corrupt run';
COMMENT ON COLUMN intervention_effects.recovered_from_reference IS '(patched - reference) / (clean - reference), the reference usually zero-ablated (Kissane et al. 2024); NULL without a reference run';
