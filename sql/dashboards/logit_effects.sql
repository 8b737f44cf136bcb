SELECT extreme, rank, token, logit_effect
FROM feature_logit_effects
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY extreme DESC, rank;
