-- How many heads contribute to a traced pair through the selected slices and through all, by head.
SELECT
    'L' || layer || 'H' || head AS head,
    side,
    count(*) AS n_pairs,
    avg(effective_heads) AS effective_heads,
    avg(effective_heads_all_slices) AS effective_heads_all_slices,
    avg(n_kept) AS n_kept,
    avg(n_kept_all_slices) AS n_kept_all_slices,
    avg(correlation) AS correlation
FROM attention_slice_contrast
WHERE study = $study AND task = 'ioi'
GROUP BY layer, head, side
ORDER BY n_pairs DESC, layer, head, side;
