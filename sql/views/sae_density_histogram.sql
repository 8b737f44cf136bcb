CREATE VIEW sae_density_histogram AS
SELECT
    study,
    layer,
    floor(log10_density * 4) / 4 AS log10_density_low,
    log10_density_low + 0.25 AS log10_density_high,
    count(*) AS n_features,
    count(*) / sum(count(*)) OVER (PARTITION BY study, layer) AS share_of_features
FROM feature_statistics
GROUP BY study, layer, log10_density_low;
COMMENT ON VIEW sae_density_histogram IS 'One row per layer and bin of log10 density: how many features of an SAE fire how often. Features that never fired have their own row, with NULL edges.';
COMMENT ON COLUMN sae_density_histogram.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_density_histogram.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN sae_density_histogram.log10_density_low IS 'Lower edge of the bin of log10 density, included; bins are 0.25 wide; NULL for features that never fired';
COMMENT ON COLUMN sae_density_histogram.log10_density_high IS 'Upper edge of the bin, not included';
COMMENT ON COLUMN sae_density_histogram.n_features IS 'Features whose log10 density lies in the bin';
COMMENT ON COLUMN sae_density_histogram.share_of_features IS 'n_features / all features of the layer''s SAE, 0 to 1';
