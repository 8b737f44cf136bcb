SELECT
    e.rank,
    e.sequence,
    e.position,
    e.activation,
    e.token,
    e.window_tokens,
    e.window_activations,
    d.dfa_by_head,
    d.dfa_by_source
FROM feature_top_examples AS e
LEFT JOIN feature_dfa AS d USING (study, layer, feature, rank)
WHERE study = $study AND layer = $layer AND feature = $feature
ORDER BY e.rank;
