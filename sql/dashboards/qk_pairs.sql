-- Pairs of parts that add most to a head's attention score: what the query has and what the key has.
SELECT
    task,
    'L' || layer || 'H' || head AS head,
    source_role,
    chosen_by,
    rank,
    CASE
        WHEN query_feature IS NOT NULL THEN 'L' || query_layer || 'F' || query_feature
        ELSE query_kind || coalesce(' ' || query_layer, '')
    END AS query_part,
    CASE
        WHEN key_feature IS NOT NULL THEN 'L' || key_layer || 'F' || key_feature
        ELSE key_kind || coalesce(' ' || key_layer, '')
    END AS key_part,
    mean,
    sd,
    score_share,
    covariance_share,
    mean_score,
    n_present,
    n
FROM qk_feature_pairs
WHERE study = $study AND rank < 10
ORDER BY task, layer, qk_feature_pairs.head, source_role, rank;
