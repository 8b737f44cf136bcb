-- Shares of the classes sum to 1, and are n_class / n_classified
SELECT layer, rater, sum(class_share) AS total, sum(n_class) AS counted, max(n_classified) AS n_classified
FROM head_label_summary
WHERE study = getvariable('study')
GROUP BY ALL
HAVING (
    abs(total - 1) <= 1e-6
    AND counted = n_classified
    AND max(abs(class_share * head_label_summary.n_classified - n_class)) <= 1e-6 * n_classified
) IS NOT TRUE;
