-- How do the study's results compare with the published ones, or with an earlier run?
SELECT
    reference,
    key,
    coalesce(array_to_string(our_heads, ' '), round(ours, 3)::VARCHAR) AS ours,
    coalesce(array_to_string(published_heads, ' '), round(published, 3)::VARCHAR) AS published,
    round(difference, 3) AS difference,
    round("precision", 2) AS "precision",
    round(recall, 2) AS recall,
    within,
    source
FROM reproduction
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY within NULLS LAST, reference, key;
