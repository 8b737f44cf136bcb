-- faithfulness is (mean_kept - mean_none_kept) / (mean_clean - mean_none_kept)
SELECT heads_of, measured_on, metric, mean_clean, mean_kept, mean_none_kept, faithfulness
FROM component_reuse_faithfulness
WHERE study = getvariable('study') AND faithfulness IS NOT NULL AND (
    abs(faithfulness * (mean_clean - mean_none_kept) - (mean_kept - mean_none_kept))
    <= 1e-6 * (abs(mean_clean) + abs(mean_kept) + abs(mean_none_kept))
) IS NOT TRUE;
