-- On which IOI templates and name orders is the model weakest?
SELECT
    template,
    name_order,
    count(*) AS n,
    round(avg(prefers_io::INT), 3) AS prefers_io,
    round(avg(logit_diff), 2) AS logit_diff,
    any_value(text) AS example
FROM ioi_baseline
JOIN ioi_prompts USING (study, prompt)
WHERE study = coalesce(getvariable('study'), 'organism') AND variant = 'base'
GROUP BY ALL
ORDER BY logit_diff
LIMIT 10;
