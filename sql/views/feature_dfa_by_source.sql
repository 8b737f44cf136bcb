CREATE VIEW feature_dfa_by_source AS
SELECT
    study,
    layer,
    feature,
    rank,
    sequence,
    position,
    generate_subscripts(dfa_by_source, 1) - 1 AS source,
    position - source AS distance,
    unnest(dfa_by_source) AS dfa
FROM feature_dfa;
COMMENT ON VIEW feature_dfa_by_source IS 'One row per top example and source position: direct feature attribution by source, unnested from feature_dfa.';
COMMENT ON COLUMN feature_dfa_by_source.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dfa_by_source.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_dfa_by_source.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_dfa_by_source.rank IS 'Rank of the example in feature_top_examples';
COMMENT ON COLUMN feature_dfa_by_source.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_dfa_by_source.position IS 'Destination: the position at which the feature is active';
COMMENT ON COLUMN feature_dfa_by_source.source IS 'Source position, 0 .. destination';
COMMENT ON COLUMN feature_dfa_by_source.distance IS 'Destination minus source, in tokens';
COMMENT ON COLUMN feature_dfa_by_source.dfa IS 'Contribution of the source position to the pre-activation, summed over heads, signed';
