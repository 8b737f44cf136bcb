SELECT
    rank,
    node,
    parent,
    node_kind,
    at_layer,
    at_feature,
    at_position,
    token,
    dfa,
    share_of_root,
    identity_error
FROM feature_rdfa
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY rank, node;
