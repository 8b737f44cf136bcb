-- How far back do each layer's features read, by the share of positive attribution at each distance?
WITH sources AS (
    SELECT
        study,
        layer,
        position - (generate_subscripts(dfa_by_source, 1) - 1) AS distance,
        unnest(dfa_by_source) AS dfa
    FROM feature_dfa
    WHERE study = coalesce(getvariable('study'), 'organism')
)
SELECT
    layer,
    round(sum(dfa) FILTER (WHERE distance = 0) / sum(dfa), 2) AS same_token,
    round(sum(dfa) FILTER (WHERE distance = 1) / sum(dfa), 2) AS previous_token,
    round(sum(dfa) FILTER (WHERE distance BETWEEN 2 AND 8) / sum(dfa), 2) AS two_to_eight,
    round(sum(dfa) FILTER (WHERE distance > 8) / sum(dfa), 2) AS further_back
FROM sources
WHERE dfa > 0
GROUP BY layer
ORDER BY layer;
