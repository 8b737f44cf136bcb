-- What do interventions of each kind do to the logit difference, and how far do they move the residual stream?
SELECT
    task,
    kind,
    mode,
    site,
    count(*) AS interventions,
    round(avg(mean_effect), 3) AS mean_effect,
    round(min(mean_effect), 3) AS most_harmful,
    round(max(mean_effect), 3) AS most_helpful,
    round(avg(mean_cosine), 4) AS mean_cosine,
    round(avg(mean_norm_ratio), 4) AS mean_norm_ratio
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND metric = 'logit_diff'
GROUP BY task, kind, mode, site
ORDER BY task, kind, mode, site;
