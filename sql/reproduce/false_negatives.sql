-- Tokens per million at which a proxy is true and its best feature silent, by proxy
-- The best feature of a proxy: the largest 2 TP / (2 TP + FP + FN), of all layers.
-- statistic: tokens per million at which the proxy is true and the feature silent
-- position: every token but BOS
-- weights: raw
-- rule: the feature with the largest F1 for the proxy
-- run: model, bos, corpus, sae
SELECT
    proxy AS key,
    arg_max(1e6 * n_silent_true / n_tokens, 2.0 * n_active_true / (n_active + n_true)) AS value
FROM feature_proxies
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY proxy
ORDER BY proxy;
