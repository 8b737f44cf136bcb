-- What is dropped of a score has a sum of the other sign, or none
SELECT prompt_set, prompt_number, layer, head, uncapped_score, slice_sum, n_slices
FROM prompt_pairs
WHERE study = getvariable('study') AND (
    slice_sum * sign(uncapped_score) >= abs(uncapped_score) * (1 - 1e-6)
    AND (n_slices = 0) = (uncapped_score = 0)
) IS NOT TRUE;
