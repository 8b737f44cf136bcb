-- slice_sum is the sum of the terms of the selected slices (relative to the sum of all sizes)
SELECT task, prompt, layer, head, destination, source, slice_sum, selected
FROM (
    SELECT
        *,
        coalesce(list_sum(list_transform(slices, lambda k: slice_terms[k + 1]::DOUBLE)), 0) AS selected,
        list_sum(list_transform(slice_terms, lambda term: abs(term))) AS size
    FROM attention_slices
    WHERE study = getvariable('study')
)
WHERE (abs(slice_sum - selected) <= 1e-5 * size) IS NOT TRUE;
