-- Members of a set are numbered from 0 without gaps, each once
SELECT task, intervention, count(*) AS n, max(member) + 1 AS numbered, count(DISTINCT member_id) AS n_different
FROM intervention_sets
WHERE study = getvariable('study')
GROUP BY ALL
HAVING (n = numbered AND n = n_different) IS NOT TRUE;
