-- Of which tokens does most lie in what a traced head's key reads: are they those that it attends to (FC24, Fig. 9)?
WITH nodes AS (
    SELECT
        t.*,
        v.token,
        row_number() OVER (
            PARTITION BY t.layer, t.head, t.destination_role, t.source_role
            ORDER BY t.mean_projection DESC, t.token_id
        ) AS place
    FROM attention_token_norms AS t
    JOIN vocabulary AS v USING (study, token_id)
    WHERE t.study = coalesce(getvariable('study'), 'organism') AND t.task = 'ioi'
)
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' -> ' || source_role AS pair,
    any_value(n_dimensions) AS dimensions,
    count(*) AS tokens,
    count(*) FILTER (at_source) AS tokens_at_source,
    round(avg(mean_projection) FILTER (at_source), 2) AS mean_of_these,
    round(avg(mean_projection) FILTER (NOT at_source), 2) AS of_others,
    string_agg(token, ' ' ORDER BY place) FILTER (place <= 6) AS largest
FROM nodes
GROUP BY layer, head, pair
ORDER BY layer, head, pair;
