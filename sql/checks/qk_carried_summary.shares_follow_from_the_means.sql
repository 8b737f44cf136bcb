-- score_share is mean_part / mean_score, and no more pairs are summed than there are
SELECT task, layer, head, carrier_layer, carrier_head, name_order, source_role, ordered_by, n_top_pairs, mean_part, mean_score, score_share
FROM qk_carried_summary
WHERE study = getvariable('study') AND (
    n_top_pairs <= n_part_pairs
    AND (score_share IS NULL OR abs(score_share * mean_score - mean_part) <= 1e-6 * (1 + abs(mean_part)))
) IS NOT TRUE;
