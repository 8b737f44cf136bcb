-- precision is n_shared / n_kept_heads, recall n_shared / n_reachable
SELECT task, trace_rule, counted, min_share, head_list, n_shared, n_kept_heads, n_reachable, precision, recall
FROM trace_summary
WHERE study = getvariable('study') AND head_list IS NOT NULL AND NOT (
    CASE WHEN n_kept_heads = 0 THEN precision IS NULL
        ELSE coalesce(abs(precision * n_kept_heads - n_shared) <= 1e-6 * n_kept_heads, false) END
    AND CASE WHEN n_reachable = 0 THEN recall IS NULL
        ELSE coalesce(abs(recall * n_reachable - n_shared) <= 1e-6 * n_reachable, false) END
);
