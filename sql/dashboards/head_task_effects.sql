SELECT task, mode, reference, fallback_share, position_role, mean_effect, ci_low, ci_high, n
FROM task_head_effects
WHERE study = $study AND layer = $layer AND head = $head AND metric = 'loss'
ORDER BY task, mode;
