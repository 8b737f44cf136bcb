-- How well does the traced circuit agree with reference lists of heads, rule by rule, and what would random heads give?
SELECT
    trace_rule,
    counted,
    min_share,
    n_kept_heads,
    n_communication_edges,
    head_list,
    n_shared,
    round(precision, 2) AS precision,
    round(random_precision, 2) AS random_precision,
    round(recall, 2) AS recall,
    round(random_recall, 2) AS random_recall,
    round(p_value, 4) AS p_value
FROM trace_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi' AND n_kept_heads > 0
ORDER BY head_list, trace_rule, counted, min_share;
