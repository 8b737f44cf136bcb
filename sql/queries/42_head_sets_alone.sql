-- Which head sets do the task alone, which lack a way around, and which hold heads they do not need?
SELECT
    task,
    head_set,
    n_set_heads,
    count(DISTINCT seed) AS random_sets,
    round(avg(m_circuit) FILTER (quantity = 'faithfulness'), 3) AS logit_difference_alone,
    round(any_value(m_full), 3) AS logit_difference_of_the_model,
    round(avg(relative) FILTER (quantity = 'faithfulness'), 3) AS unfaithful,
    round(max(relative) FILTER (quantity = 'completeness'), 3) AS incomplete,
    count(*) FILTER (quantity = 'minimality' AND relative < 0.01) AS heads_not_needed
FROM head_set_quality
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY task, head_set, n_set_heads
ORDER BY task, unfaithful;
