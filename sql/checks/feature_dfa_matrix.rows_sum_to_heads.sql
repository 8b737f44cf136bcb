-- The row of a head sums to its element of feature_dfa.dfa_by_head
SELECT m.feature, m.rank, m.head, list_sum(m.dfa_by_source) AS summed, d.dfa_by_head[m.head + 1] AS by_head
FROM feature_dfa_matrix AS m
LEFT JOIN feature_dfa AS d USING (study, layer, feature, rank)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (abs(summed - by_head) <= 1e-3) IS NOT TRUE;
