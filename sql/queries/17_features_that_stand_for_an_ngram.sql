-- Which features stand for one n-gram: active on hardly anything else, and nearly always when it occurs?
WITH fit AS (
    SELECT
        layer,
        feature,
        ngram_size,
        text,
        n_active,
        n_occurrences,
        active_share,
        rate,
        2 * active_share * rate / (active_share + rate) AS f1
    FROM feature_ngrams
    WHERE study = coalesce(getvariable('study'), 'organism')
),
best AS (
    -- Longer n-grams only where they fit better than shorter ones.
    SELECT layer, feature, arg_max(fit, f1 - 0.001 * ngram_size) AS fit
    FROM fit
    GROUP BY ALL
)
SELECT
    layer,
    feature,
    fit.ngram_size,
    fit.text AS ngram,
    fit.n_active,
    round(fit.active_share, 2) AS share_of_activations,
    round(fit.rate, 2) AS active_given_ngram,
    round(fit.f1, 3) AS f1
FROM best
ORDER BY fit.f1 DESC, fit.n_active DESC
LIMIT 20;
