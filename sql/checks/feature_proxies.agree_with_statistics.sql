-- Counts of tokens are those of feature_statistics; a proxy is true at as many tokens for all
-- features that share its definition
SELECT proxy, feature, p.n_active, s.n_active AS n_feature_active, p.n_tokens, s.n_tokens AS n_read
FROM feature_proxies AS p
LEFT JOIN feature_statistics AS s USING (study, layer, feature)
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (p.n_active = n_feature_active AND p.n_tokens = n_read) IS NOT TRUE;
