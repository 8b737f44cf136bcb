-- Direct feature attribution by head and by source sums to the feature's pre-activation, of a z
-- that the model rounded
SELECT feature, rank, pre_activation, identity_error, by_head, by_source, allowed
FROM (
    SELECT
        *,
        list_sum(dfa_by_head) + constant AS by_head,
        list_sum(dfa_by_source) + constant AS by_source,
        1e-3 + 4 * getvariable('model.rounding') * list_sum(list_transform(dfa_by_source, lambda part: abs(part))) AS allowed
    FROM feature_dfa
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE (
    identity_error <= allowed
    AND abs(by_head - pre_activation) <= allowed
    AND abs(by_source - pre_activation) <= allowed
) IS NOT TRUE;
