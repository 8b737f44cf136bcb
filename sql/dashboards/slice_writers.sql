-- What every upstream head contributes to a pair of the most frequent nodes of the trace, through
-- all slices and through the selected ones.
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' → ' || source_role AS pair,
    prompt,
    side,
    'L' || upstream_layer || 'H' || upstream_head AS writer,
    contribution,
    contribution_all_slices,
    upstream_layer,
    upstream_head
FROM attention_slice_writers
WHERE study = $study AND task = $task
ORDER BY layer DESC, attention_slice_writers.head, pair, side, upstream_layer, upstream_head;
