CREATE VIEW feature_dfa_shares AS
WITH summed AS (
    SELECT
        study,
        layer,
        feature,
        interval,
        activation_above,
        head,
        source_class,
        main_source_token_id,
        sum(n) OVER above AS n,
        sum(total_sum) OVER above AS t,
        sum(total_sum_squares) OVER above AS tt,
        sum(part_sum) OVER above AS p,
        sum(part_sum_squares) OVER above AS pp,
        sum(part_total_product) OVER above AS pt
    FROM feature_dfa_variance
    WINDOW above AS (
        PARTITION BY study, layer, feature, head, source_class
        ORDER BY interval DESC
        ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
)
SELECT
    study,
    layer,
    feature,
    interval,
    activation_above,
    head,
    source_class,
    main_source_token_id,
    n::BIGINT AS n,
    p / n AS mean_dfa,
    sqrt(greatest(pp - p * p / n, 0) / nullif(n - 1, 0)) AS sd_dfa,
    p / nullif(t, 0) AS mean_share,
    (pt - p * t / n) / nullif(greatest(tt - t * t / n, 0), 0) AS variance_share
FROM summed;
COMMENT ON VIEW feature_dfa_shares IS 'Which heads, and which classes of sources, make the pre-activation of a feature where its activation is above a threshold, over a corpus: feature_dfa_variance summed over all intervals from one on (K24 Fig. 12: 94% of the variance one head; above an activation of 5, over 99.9% one token). A row per feature, interval and head or class.';
COMMENT ON COLUMN feature_dfa_shares.activation_above IS 'Lower bound of the interval, in units of z';
COMMENT ON COLUMN feature_dfa_shares.n IS 'Tokens summed over, of this interval and all stronger ones';
COMMENT ON COLUMN feature_dfa_shares.mean_dfa IS 'Mean of the part over these tokens, in units of z';
COMMENT ON COLUMN feature_dfa_shares.sd_dfa IS 'Standard deviation of the part over these tokens (n - 1)';
COMMENT ON COLUMN feature_dfa_shares.mean_share IS 'Share of the mean pre-activation less its constant; sums to 1 over heads, and over classes';
COMMENT ON COLUMN feature_dfa_shares.variance_share IS 'cov(part, total) / var(total): sums to 1 over heads, and over classes; NULL where the total does not vary';
