CREATE VIEW feature_contexts AS
SELECT
    e.study,
    e.layer,
    e.feature,
    e.rank,
    e.activation,
    array_to_string(e.window_tokens[: e.position - e.window_start], '')
    || ' «' || e.token || '» '
    || array_to_string(e.window_tokens[e.position - e.window_start + 2 :], '') AS context,
    d.document,
    e.sequence,
    e.position
FROM feature_top_examples AS e
LEFT JOIN document_spans AS d
    ON d.study = e.study AND d.sequence = e.sequence
    AND e.position BETWEEN d.first_position AND d.last_position;
COMMENT ON VIEW feature_contexts IS 'One row per feature and rank: the text around the token at which the feature is most active, to read, search and export. The tokens one by one, with activations, are in feature_top_examples.';
COMMENT ON COLUMN feature_contexts.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_contexts.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_contexts.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_contexts.rank IS 'Rank by activation, 0 = strongest, as in feature_top_examples';
COMMENT ON COLUMN feature_contexts.activation IS 'Activation of the feature at this token, in units of z';
COMMENT ON COLUMN feature_contexts.context IS 'Text of the window around the token, which stands between « and »';
COMMENT ON COLUMN feature_contexts.document IS 'Document of corpus_documents that the token is of';
COMMENT ON COLUMN feature_contexts.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_contexts.position IS 'Position of the token in the sequence, from 0 (BOS)';
