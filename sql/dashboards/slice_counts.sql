-- How many slices a firing pair needs, on the prompts and on unspecific text, all heads together.
SELECT
    text_source,
    n_slices,
    sum(n_pairs) AS n_pairs,
    sum(n_pairs) / sum(sum(n_pairs)) OVER (PARTITION BY text_source) AS share_of_pairs
FROM attention_slice_counts
WHERE study = $study
GROUP BY text_source, n_slices
ORDER BY text_source, n_slices;
