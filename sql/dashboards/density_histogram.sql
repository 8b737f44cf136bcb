SELECT log10_density_low, log10_density_high, n_features, share_of_features
FROM sae_density_histogram
WHERE study = $study AND layer = $layer
ORDER BY log10_density_low;
