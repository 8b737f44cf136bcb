-- A feature has as many rows, in as many sequences, as feature_statistics counts, the largest of
-- its largest activation; one that never fired has none
SELECT feature, n_active, counted, n_active_sequences, in_sequences, max_activation, largest
FROM feature_statistics
LEFT JOIN (
    SELECT
        feature,
        count(*) AS counted,
        count(DISTINCT sequence) AS in_sequences,
        max(activation) AS largest
    FROM feature_activations
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    GROUP BY ALL
) USING (feature)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (
    n_active = coalesce(counted, 0)
    AND n_active_sequences = coalesce(in_sequences, 0)
    AND (n_active = 0 OR abs(max_activation - largest) <= 1e-6 * largest)
) IS NOT TRUE;
