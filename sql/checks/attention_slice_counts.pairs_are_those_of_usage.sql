-- The histogram of a head counts the firing pairs that attention_slice_usage is over, and no pair
-- needs more than d_head slices
SELECT text_source, layer, head, counted, n_pairs, largest
FROM (
    SELECT study, text_source, layer, head, sum(n_pairs) AS counted, max(n_slices) AS largest
    FROM attention_slice_counts
    WHERE study = getvariable('study')
    GROUP BY ALL
)
JOIN language_model USING (study)
LEFT JOIN (
    SELECT DISTINCT study, text_source, layer, head, n_pairs FROM attention_slice_usage WHERE fires
) USING (study, text_source, layer, head)
WHERE (counted = n_pairs AND largest <= d_head) IS NOT TRUE;
