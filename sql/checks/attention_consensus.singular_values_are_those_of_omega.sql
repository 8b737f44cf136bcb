-- Singular values are those of attention_svd
SELECT task, layer, head, slice, c.singular_value, s.singular_value AS of_omega
FROM attention_consensus AS c
LEFT JOIN attention_svd AS s USING (study, layer, head, slice)
WHERE study = getvariable('study') AND (abs(c.singular_value - of_omega) <= 1e-6 * (1 + of_omega)) IS NOT TRUE;
