-- Logit IO - logit S of the unmodified model on base prompts: mean, standard deviation, share above 0
-- statistic: logit IO - logit S over prompts
-- position: END
-- prompts: this project's
-- run: model, bos
WITH base AS (
    SELECT logit_diff
    FROM ioi_baseline
    JOIN ioi_prompts USING (study, prompt)
    WHERE study = coalesce(getvariable('study'), 'organism') AND variant = 'base'
)
SELECT 'mean' AS key, avg(logit_diff) AS value FROM base
UNION ALL
SELECT 'sd', stddev_samp(logit_diff) FROM base
UNION ALL
SELECT 'share positive', avg((logit_diff > 0)::DOUBLE) FROM base
UNION ALL
SELECT 'prompts', count(*) FROM base;
