-- What is dropped of a score has no positive sum, and nothing is left where the whole has none
SELECT prompt_set, prompt_number, layer, head, uncapped_score, slice_sum, n_slices
FROM prompt_pairs
WHERE study = getvariable('study') AND (
    slice_sum >= uncapped_score - 1e-6 * (1 + abs(uncapped_score)) AND (n_slices = 0) = (uncapped_score <= 0)
) IS NOT TRUE;
