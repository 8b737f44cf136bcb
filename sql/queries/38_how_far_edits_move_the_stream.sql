-- How large are edits: cosine and norm of the residual stream with and without them (FC24, Fig. 10-13)?
SELECT
    kind,
    mode,
    scope,
    receiver,
    is_control,
    n,
    round(cosine_05, 4) AS cosine_05,
    round(cosine_50, 4) AS cosine_50,
    round(cosine_95, 4) AS cosine_95,
    round(norm_ratio_05, 4) AS norm_05,
    round(norm_ratio_50, 4) AS norm_50,
    round(norm_ratio_95, 4) AS norm_95
FROM intervention_magnitudes
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY kind, mode, scope, receiver, is_control;
