-- How much of the variance of a head's attention score the first k pairs explain.
SELECT
    task,
    'L' || layer || 'H' || head AS head,
    source_role,
    ordered_by,
    n_top_pairs,
    variance_explained,
    variance_explained_held_out,
    r_squared,
    score_share,
    n_part_pairs,
    n
FROM qk_feature_summary
WHERE study = $study
ORDER BY task, layer, qk_feature_summary.head, source_role, ordered_by, n_top_pairs;
