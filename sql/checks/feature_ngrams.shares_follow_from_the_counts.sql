-- active_share is n_active over the feature's active tokens, rate n_active / n_occurrences; ranks
-- are 0 .. n - 1, the most frequent first
SELECT * FROM (
    SELECT
        feature, ngram_size, rank, g.n_active, n_occurrences, active_share, rate,
        s.n_active AS n_feature_active,
        row_number() OVER ranked - 1 AS number,
        lag(g.n_active) OVER ranked AS before
    FROM feature_ngrams AS g
    LEFT JOIN feature_statistics AS s USING (study, layer, feature)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    WINDOW ranked AS (PARTITION BY feature, ngram_size ORDER BY rank)
)
WHERE (
    rank = number
    AND n_active <= coalesce(before, n_active)
    AND abs(active_share * n_feature_active - n_active) <= 1e-6 * n_feature_active
    AND abs(rate * n_occurrences - n_active) <= 1e-6 * n_occurrences
) IS NOT TRUE;
