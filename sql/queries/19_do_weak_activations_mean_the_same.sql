-- Do features fire on the same tokens when weak as when strong, by activation interval?
WITH strongest AS (
    SELECT study, layer, feature, list(DISTINCT token_id) AS tokens
    FROM feature_top_examples
    WHERE study = coalesce(getvariable('study'), 'organism')
    GROUP BY ALL
)
SELECT
    layer,
    interval,
    count(DISTINCT feature) AS features,
    count(*) AS random_examples,
    round(avg(list_contains(tokens, token_id)::INT), 3) AS share_on_a_token_of_the_top_examples
FROM feature_interval_examples
JOIN strongest USING (study, layer, feature)
WHERE sample = 'random'
GROUP BY layer, interval
ORDER BY layer, interval;
