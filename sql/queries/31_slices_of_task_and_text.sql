-- How many slices does a firing pair need, on the task and on unspecific text?
SELECT
    text_source,
    layer,
    sum(n_pairs)::BIGINT AS firing_pairs,
    round(sum(n_slices * n_pairs) / sum(n_pairs), 2) AS mean_slices,
    round(coalesce(sum(n_pairs) FILTER (WHERE n_slices = 1), 0) / sum(n_pairs), 2) AS share_of_one_slice,
    max(n_slices) AS most
FROM attention_slice_counts
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY ALL
ORDER BY layer, text_source;
