SELECT direction, rank, token, effect
FROM feature_logit_effects
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY direction DESC, rank;
