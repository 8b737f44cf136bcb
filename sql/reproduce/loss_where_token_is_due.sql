-- Share of the loss increase from ablating a feature that falls where its token is due, by feature
-- Keys: the token that the feature promotes most, of the feature of the family induction with the largest share.
-- statistic: share of the summed increases of the cross-entropy
-- position: predictions whose next token is the feature's, from every token but BOS
-- weights: raw
-- reference: feature removed, error kept
-- rule: induction feature with the largest share for its token
-- run: model, bos, corpus, sae
SELECT token AS key, max(share) AS value
FROM (
    SELECT l.layer, l.feature, v.token, sum(increase_share) AS share
    FROM feature_loss AS l
    JOIN vocabulary AS v ON v.study = l.study AND v.token_id = l.promoted_token_id
    WHERE l.study = coalesce(getvariable('study'), 'organism')
        AND l.chosen_by = 'induction' AND l.position_class <> 'other'
    GROUP BY ALL
) AS features
GROUP BY token
ORDER BY token;
