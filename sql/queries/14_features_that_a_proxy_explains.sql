-- Which features does each proxy of the study explain best: most of their activation where it is true, far more than by chance?
SELECT
    s.proxy,
    s.layer,
    s.feature,
    round(s.mass_specificity, 3) AS share_of_activation,
    round(s.specificity, 3) AS share_of_tokens,
    round(s.specificity_low, 3) AS low_95,
    round(s.base_rate, 4) AS chance,
    round(s.sensitivity, 3) AS sensitivity,
    s.n_active,
    o.promoted[1] AS promotes,
    o.top_head
FROM feature_proxy_shares AS s
JOIN feature_overview AS o USING (study, layer, feature)
WHERE s.study = coalesce(getvariable('study'), 'organism') AND s.n_active >= 20
QUALIFY row_number() OVER (
    PARTITION BY s.proxy ORDER BY s.mass_specificity DESC, s.n_active DESC
) <= 5
ORDER BY s.proxy, share_of_activation DESC;
