-- dfa_by_head has a value for every head
SELECT feature, rank, len(dfa_by_head) AS n_values, n_heads
FROM feature_dfa
JOIN language_model USING (study)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (n_values = n_heads) IS NOT TRUE;
