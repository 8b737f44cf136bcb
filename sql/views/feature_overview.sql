CREATE VIEW feature_overview AS
WITH heads AS (
    SELECT
        study,
        layer,
        feature,
        arg_max(head, attribution) AS top_head,
        max(attribution) AS top_head_attribution
    FROM feature_head_attribution
    GROUP BY study, layer, feature
),
tokens AS (
    SELECT
        study,
        layer,
        feature,
        list(token ORDER BY rank) FILTER (WHERE extreme = 'top') AS promoted,
        list(token ORDER BY rank) FILTER (WHERE extreme = 'bottom') AS suppressed
    FROM feature_logit_effects
    GROUP BY study, layer, feature
)
SELECT
    study,
    layer,
    feature,
    s.n_active,
    s.density,
    s.mean_activation,
    s.max_activation,
    heads.top_head,
    heads.top_head_attribution,
    tokens.promoted,
    tokens.suppressed
FROM feature_statistics AS s
LEFT JOIN heads USING (study, layer, feature)
LEFT JOIN tokens USING (study, layer, feature);
COMMENT ON VIEW feature_overview IS 'One row per feature with what a reader wants first: how often and how strongly it fires, the head it writes with most, the tokens it promotes and suppresses.';
COMMENT ON COLUMN feature_overview.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_overview.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_overview.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_overview.n_active IS 'Tokens at which the activation is above 0';
COMMENT ON COLUMN feature_overview.density IS 'n_active / tokens read, 0 to 1';
COMMENT ON COLUMN feature_overview.mean_activation IS 'Mean activation over the tokens at which it is above 0, in units of z';
COMMENT ON COLUMN feature_overview.max_activation IS 'Largest activation, in units of z; NULL for a feature that never fired';
COMMENT ON COLUMN feature_overview.top_head IS 'Head with the largest head attribution (K24 eq. 2); NULL where the decoder row is zero';
COMMENT ON COLUMN feature_overview.top_head_attribution IS 'Its attribution, 0 to 1';
COMMENT ON COLUMN feature_overview.promoted IS 'Tokens with the largest logit effects, largest first';
COMMENT ON COLUMN feature_overview.suppressed IS 'Tokens with the smallest logit effects, smallest first';
