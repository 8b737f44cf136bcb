CREATE VIEW feature_dfa_by_head AS
SELECT
    study,
    layer,
    feature,
    rank,
    sequence,
    position,
    generate_subscripts(dfa_by_head, 1) - 1 AS head,
    unnest(dfa_by_head) AS dfa
FROM feature_dfa;
COMMENT ON VIEW feature_dfa_by_head IS 'One row per top example and head: direct feature attribution by head, unnested from feature_dfa.';
COMMENT ON COLUMN feature_dfa_by_head.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dfa_by_head.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_dfa_by_head.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_dfa_by_head.rank IS 'Rank of the example in feature_top_examples';
COMMENT ON COLUMN feature_dfa_by_head.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_dfa_by_head.position IS 'Destination: the position at which the feature is active';
COMMENT ON COLUMN feature_dfa_by_head.head IS 'Head of the layer';
COMMENT ON COLUMN feature_dfa_by_head.dfa IS 'Contribution of the head to the pre-activation, summed over sources, signed';
