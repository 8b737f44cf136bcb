-- interpretable_share is n_interpretable / n_labelled
SELECT layer, rater, n_labelled, n_interpretable, interpretable_share
FROM feature_label_summary
WHERE study = getvariable('study') AND (abs(interpretable_share * n_labelled - n_interpretable) <= 1e-6 * n_labelled) IS NOT TRUE;
