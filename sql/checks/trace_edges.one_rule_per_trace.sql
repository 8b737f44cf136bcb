-- A trace has one rule: that of its roots, in every table made of it
SELECT task, trace_rule, made_of_it
FROM (
    SELECT task, trace_rule, 'trace_edges' AS made_of_it FROM trace_edges WHERE study = getvariable('study')
    UNION
    SELECT task, trace_rule, 'attention_slices' FROM attention_slices WHERE study = getvariable('study')
) AS traced
LEFT JOIN (
    SELECT task, any_value(trace_rule) AS rule, count(DISTINCT trace_rule) AS n_rules
    FROM trace_roots
    WHERE study = getvariable('study')
    GROUP BY task
) AS roots USING (task)
WHERE (trace_rule = rule AND n_rules = 1) IS NOT TRUE;
