CREATE VIEW sae_held_out_density_histogram AS
SELECT
    study,
    layer,
    -8 + (bin - 1) / 4 AS log10_density_low,
    -7.75 + (bin - 1) / 4 AS log10_density_high,
    n_features,
    n_features / s.d_sae AS share_of_features
FROM (
    SELECT
        study,
        layer,
        unnest(range(1, len(density_counts) + 1)) AS bin,
        unnest(density_counts) AS n_features
    FROM sae_evaluation
)
JOIN attention_sae AS s USING (study, layer)
WHERE n_features > 0;
COMMENT ON VIEW sae_held_out_density_histogram IS 'One row per layer and bin of log10 density that is not empty: how many features of an SAE fire how often on held-out tokens. Features that never fired are left out; sae_evaluation.dead_fraction counts them. sae_density_histogram has the same over the tokens of the feature pass.';
COMMENT ON COLUMN sae_held_out_density_histogram.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_held_out_density_histogram.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN sae_held_out_density_histogram.log10_density_low IS 'Lower edge of the bin of log10 density, included; bins are 0.25 wide';
COMMENT ON COLUMN sae_held_out_density_histogram.log10_density_high IS 'Upper edge of the bin, not included (in the highest bin, 0, it is)';
COMMENT ON COLUMN sae_held_out_density_histogram.n_features IS 'Features whose log10 density lies in the bin';
COMMENT ON COLUMN sae_held_out_density_histogram.share_of_features IS 'n_features / all features of the layer''s SAE, 0 to 1';
