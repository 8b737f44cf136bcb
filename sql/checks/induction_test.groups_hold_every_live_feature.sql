-- Every feature that fired is in one group
SELECT
    measure,
    sum(n_features) AS in_groups,
    (SELECT count(*) FROM feature_statistics WHERE study = getvariable('study') AND layer = getvariable('layer') AND n_active > 0) AS alive
FROM induction_test
WHERE study = getvariable('study') AND layer = getvariable('layer')
GROUP BY measure
HAVING (in_groups = alive) IS NOT TRUE;
