-- No feature of the other SAE is the partner of two features
SELECT compared, other_study, other_layer, other_sae, matched_feature, count(*) AS n
FROM sae_matching
WHERE study = getvariable('study') AND layer = getvariable('layer') AND matched_feature IS NOT NULL
GROUP BY ALL
HAVING n > 1;
