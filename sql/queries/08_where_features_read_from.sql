-- How far back do each layer's features read, by the share of positive attribution at each distance?
WITH sources AS (
    SELECT
        study,
        layer,
        position - (generate_subscripts(dfa_by_source, 1) - 1) AS distance,
        unnest(dfa_by_source) AS attribution
    FROM feature_dfa
    WHERE study = coalesce(getvariable('study'), 'organism')
)
SELECT
    layer,
    round(sum(attribution) FILTER (WHERE distance = 0) / sum(attribution), 2) AS same_token,
    round(sum(attribution) FILTER (WHERE distance = 1) / sum(attribution), 2) AS previous_token,
    round(sum(attribution) FILTER (WHERE distance BETWEEN 2 AND 8) / sum(attribution), 2) AS two_to_eight,
    round(sum(attribution) FILTER (WHERE distance > 8) / sum(attribution), 2) AS further_back
FROM sources
WHERE attribution > 0
GROUP BY layer
ORDER BY layer;
