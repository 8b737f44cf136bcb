SELECT task, mode, reference, position_role, metric, mean_effect, ci_low, ci_high, n
FROM intervention_summary
WHERE study = $study AND kind = 'head_ablation' AND alpha = 1 AND layer = $layer AND head = $head
ORDER BY task, metric, mode, position_role;
