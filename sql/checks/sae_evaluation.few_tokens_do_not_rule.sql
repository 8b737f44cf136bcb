-- The 0.1% of tokens of largest norm carry at most checks.outlier_share_max of the variance, and of
-- what the SAE leaves over: otherwise read typical_explained_variance, and look which tokens they are
-- severity: warn
SELECT
    outlier_variance_share, outlier_loss_share, explained_variance, typical_explained_variance,
    getvariable('checks.outlier_share_max') AS most
FROM sae_evaluation
WHERE study = getvariable('study') AND layer = getvariable('layer')
    AND greatest(coalesce(outlier_variance_share, 0), coalesce(outlier_loss_share, 0)) > most;
