-- Which tracer finds heads that carry the task better, at equal size and beside random ones?
SELECT
    task,
    head_set,
    any_value(n_set_heads) AS heads,
    count(*) AS sets,
    round(avg(m_circuit), 2) AS logit_diff_of_the_set_alone,
    round(min(ci_low), 2) AS ci_low,
    round(max(ci_high), 2) AS ci_high,
    round(any_value(m_full), 2) AS logit_diff_of_the_model,
    round(avg(relative), 2) AS unfaithfulness
FROM head_set_quality
WHERE study = coalesce(getvariable('study'), 'organism')
    AND quantity = 'faithfulness'
    AND (head_set = 'head_ablation' OR head_set LIKE 'trace %' OR head_set LIKE 'random%')
GROUP BY task, head_set
ORDER BY task, heads, unfaithfulness;
