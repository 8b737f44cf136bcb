-- The slices of Omega sum to the attention score of every traced pair, whose query and key the
-- model rounded
SELECT task, prompt, layer, head, destination, source, relative_identity_error
FROM attention_slices
WHERE study = getvariable('study') AND (
    relative_identity_error <= 1e-3 + 4 * getvariable('model.rounding')
) IS NOT TRUE;
