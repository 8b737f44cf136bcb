SELECT
    a.head,
    a.attribution AS decoder_share,
    avg(d.dfa) AS mean_dfa
FROM feature_head_attribution AS a
LEFT JOIN feature_dfa_by_head AS d USING (study, layer, feature, head)
WHERE study = $study AND layer = $layer AND feature = $feature
GROUP BY ALL
ORDER BY a.head;
