-- n_slices is that of the pair in attention_slices
SELECT task, prompt, layer, head, destination, source, c.n_slices, s.n_slices AS of_pair
FROM attention_slice_contrast AS c
LEFT JOIN attention_slices AS s USING (study, task, prompt, layer, head, destination, source)
WHERE study = getvariable('study') AND (c.n_slices = of_pair) IS NOT TRUE;
