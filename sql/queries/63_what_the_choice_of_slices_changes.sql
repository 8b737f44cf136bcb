-- Do fewer upstream heads contribute through the selected slices than through all of them (FC24, Fig. 4, 16)?
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' -> ' || source_role AS pair,
    side,
    count(*) AS pairs,
    round(avg(n_slices), 1) AS slices,
    round(avg(effective_heads), 1) AS effective_heads,
    round(avg(effective_heads_all_slices), 1) AS through_all_slices,
    round(avg(n_kept), 1) AS kept,
    round(avg(n_kept_all_slices), 1) AS kept_of_all_slices,
    round(avg(n_kept_both), 1) AS kept_by_both,
    round(avg(correlation), 2) AS correlation
FROM attention_slice_contrast
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
GROUP BY layer, head, pair, side
ORDER BY pairs DESC, head, pair, side
LIMIT 24;
