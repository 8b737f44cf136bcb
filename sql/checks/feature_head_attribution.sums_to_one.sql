-- Attributions of a feature to the heads sum to 1; they are NULL together
SELECT feature, sum(attribution) AS total, count(attribution) AS n_given, count(*) AS n_heads
FROM feature_head_attribution
WHERE study = getvariable('study') AND layer = getvariable('layer')
GROUP BY feature
HAVING (n_given = 0 OR (n_given = n_heads AND abs(total - 1) <= 1e-5)) IS NOT TRUE;
