CREATE VIEW intervention_magnitudes AS
SELECT
    study,
    task,
    kind,
    mode,
    site,
    scope,
    receiver,
    is_control,
    count(*) AS n,
    avg(cosine) AS mean_cosine,
    quantile_cont(cosine, 0.05) AS cosine_05,
    quantile_cont(cosine, 0.5) AS cosine_50,
    quantile_cont(cosine, 0.95) AS cosine_95,
    avg(norm_ratio) AS mean_norm_ratio,
    quantile_cont(norm_ratio, 0.05) AS norm_ratio_05,
    quantile_cont(norm_ratio, 0.5) AS norm_ratio_50,
    quantile_cont(norm_ratio, 0.95) AS norm_ratio_95
FROM intervention_results
WHERE metric = 'kl'
GROUP BY study, task, kind, mode, site, scope, receiver, is_control;
COMMENT ON VIEW intervention_magnitudes IS 'One row per kind, mode, site and scope: how far edits move the residual stream at the edited site, over prompts and interventions (Franco & Crovella 2024, Fig. 10-13).';
COMMENT ON COLUMN intervention_magnitudes.n IS 'Prompts times interventions';
COMMENT ON COLUMN intervention_magnitudes.cosine_05 IS '5% quantile of the cosine with and without the edit';
COMMENT ON COLUMN intervention_magnitudes.norm_ratio_05 IS '5% quantile of the ratio of norms with and without the edit';
COMMENT ON COLUMN intervention_magnitudes.cosine_50 IS 'Median of that cosine';
COMMENT ON COLUMN intervention_magnitudes.cosine_95 IS '95% quantile of that cosine';
COMMENT ON COLUMN intervention_magnitudes.norm_ratio_50 IS 'Median of that ratio';
COMMENT ON COLUMN intervention_magnitudes.norm_ratio_95 IS '95% quantile of that ratio';
COMMENT ON COLUMN intervention_magnitudes.mean_cosine IS 'Mean of that cosine';
COMMENT ON COLUMN intervention_magnitudes.mean_norm_ratio IS 'Mean of that ratio';
