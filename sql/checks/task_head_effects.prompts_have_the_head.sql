-- Heads are heads of the model
SELECT DISTINCT layer, head, n_layers, n_heads
FROM task_head_effects
JOIN language_model USING (study)
WHERE study = getvariable('study') AND (layer < n_layers AND head < n_heads) IS NOT TRUE;
