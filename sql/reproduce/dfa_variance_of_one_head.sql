-- Largest share of the variance of a feature's pre-activation that one head has, over a corpus, by layer
-- Keys: layer; the median over features that fire at 100 tokens or more.
-- statistic: largest cov(part of a head, pre-activation) / var(pre-activation), median over features
-- position: every token where the feature is active
-- weights: raw
-- run: model, bos, corpus, sae
SELECT layer::VARCHAR AS key, median(largest) AS value
FROM (
    SELECT layer, feature, max(variance_share) AS largest
    FROM feature_dfa_shares
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND head IS NOT NULL AND interval = 0 AND n >= 100
    GROUP BY layer, feature
) AS features
GROUP BY layer
ORDER BY layer;
