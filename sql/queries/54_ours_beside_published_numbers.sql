-- How do the study's results compare with the published ones, or with an earlier run?
SELECT
    reference_id,
    key,
    coalesce(array_to_string(our_heads, ' '), round(ours, 3)::VARCHAR) AS ours,
    coalesce(array_to_string(reference_heads, ' '), round(reference_value, 3)::VARCHAR) AS reported,
    round(difference, 3) AS difference,
    round("precision", 2) AS "precision",
    round(recall, 2) AS recall,
    judgement,
    array_to_string(other_condition, ', ') AS other_condition,
    reference_source
FROM reproduction
WHERE study = coalesce(getvariable('study'), 'organism')
ORDER BY judgement, reference_id, key;
