-- Do tasks share heads: how far do two tasks' top heads overlap, and does each task work on the other's heads alone?
SELECT
    r.task_a,
    r.task_b,
    r.n_shared,
    r.n_top_heads,
    round(r.expected_shared, 1) AS expected_shared,
    round(r.p_value, 3) AS p_value,
    round(r.rank_correlation, 2) AS rank_correlation,
    round(ab.faithfulness, 2) AS b_on_heads_of_a,
    round(ba.faithfulness, 2) AS a_on_heads_of_b,
    round(aa.faithfulness, 2) AS a_on_own_heads,
    round(bb.faithfulness, 2) AS b_on_own_heads,
    round(ab.random_faithfulness, 2) AS b_on_random_heads,
    array_to_string(r.shared_heads, ' ') AS shared_heads
FROM component_reuse AS r
LEFT JOIN component_reuse_faithfulness AS ab
    ON ab.study = r.study AND ab.metric = r.metric AND ab.heads_of = r.task_a AND ab.measured_on = r.task_b
LEFT JOIN component_reuse_faithfulness AS ba
    ON ba.study = r.study AND ba.metric = r.metric AND ba.heads_of = r.task_b AND ba.measured_on = r.task_a
LEFT JOIN component_reuse_faithfulness AS aa
    ON aa.study = r.study AND aa.metric = r.metric AND aa.heads_of = r.task_a AND aa.measured_on = r.task_a
LEFT JOIN component_reuse_faithfulness AS bb
    ON bb.study = r.study AND bb.metric = r.metric AND bb.heads_of = r.task_b AND bb.measured_on = r.task_b
WHERE r.study = coalesce(getvariable('study'), 'organism')
    AND r.mode = 'mean_leave_one_out'
    AND r.metric = 'logit_diff'
    AND r.head_ranking = 'harm'
    AND r.top_share = (
        SELECT max(w.top_share)
        FROM component_reuse AS w
        WHERE w.study = r.study
    )
ORDER BY r.n_shared DESC, r.p_value, r.task_a, r.task_b;
