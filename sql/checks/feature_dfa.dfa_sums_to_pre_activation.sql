-- Direct feature attribution by head and by source sums to the feature's pre-activation
SELECT feature, rank, pre_activation, identity_error, by_head, by_source
FROM (
    SELECT
        *,
        list_sum(dfa_by_head) + constant AS by_head,
        list_sum(dfa_by_source) + constant AS by_source
    FROM feature_dfa
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE (
    identity_error <= 1e-3
    AND abs(by_head - pre_activation) <= 1e-3
    AND abs(by_source - pre_activation) <= 1e-3
) IS NOT TRUE;
