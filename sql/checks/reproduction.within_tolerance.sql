-- Every value that can be judged is within the tolerance of its reference
-- severity: warn
SELECT reference_id, key, ours, reference_value, tolerance
FROM reproduction
WHERE study = getvariable('study')
    AND tolerance IS NOT NULL
    AND judgement NOT IN ('within', 'other_condition', 'unstable');
