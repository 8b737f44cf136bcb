-- Activations lie in the interval (low, high] that they stand for, and at most as many are listed
-- of a sample as the interval has
SELECT feature, interval, sample, rank, activation, low, high, n_active
FROM feature_interval_examples
LEFT JOIN feature_intervals USING (study, layer, feature, interval)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (
    activation > low * (1 - 1e-6) AND activation <= high * (1 + 1e-6) AND rank < n_active
) IS NOT TRUE;
