-- Every pair has one base prompt, and each of its variants once
SELECT task, pair_id, count(*) FILTER (variant = 'base') AS n_base, count(*) AS n, count(DISTINCT variant) AS n_variants
FROM task_prompts
WHERE study = getvariable('study')
GROUP BY task, pair_id
HAVING (n_base = 1 AND n = n_variants) IS NOT TRUE;
