SELECT low, high, n_features, share
FROM sae_density_histogram
WHERE study = $study AND layer = $layer
ORDER BY low;
