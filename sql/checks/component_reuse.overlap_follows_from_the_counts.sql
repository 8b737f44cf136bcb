-- jaccard is n_shared / (2 n_top_heads - n_shared), expected_shared is n_top_heads^2 /
-- n_model_heads, and every pair of tasks occurs once
SELECT a.task_a, a.task_b, a.mode, a.metric, a.head_ranking, a.top_share, a.n_shared, a.jaccard
FROM component_reuse AS a
LEFT JOIN component_reuse AS b
    ON a.study = b.study AND a.task_a = b.task_b AND a.task_b = b.task_a
WHERE a.study = getvariable('study') AND (
    b.study IS NULL
    AND abs(a.jaccard * (2 * a.n_top_heads - a.n_shared) - a.n_shared) <= 1e-6 * a.n_top_heads
    AND abs(a.expected_shared * a.n_model_heads - a.n_top_heads ** 2) <= 1e-6 * a.n_model_heads
) IS NOT TRUE;
