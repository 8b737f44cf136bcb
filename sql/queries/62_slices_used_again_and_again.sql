-- Which singular vectors does a head use in prompt after prompt when it fires, and when it does not (FC24, Fig. 2, 8)?
WITH pairs AS (
    SELECT layer, head, fires, any_value(n_pairs) AS n_pairs
    FROM attention_slice_usage
    WHERE study = coalesce(getvariable('study'), 'organism') AND text_source = 'ioi'
    GROUP BY layer, head, fires
),
ranked AS (
    SELECT
        layer,
        head,
        fires,
        slice,
        selected_share,
        mean_term,
        row_number() OVER (
            PARTITION BY layer, head, fires ORDER BY selected_share DESC, slice
        ) AS place
    FROM attention_slice_usage
    WHERE study = coalesce(getvariable('study'), 'organism') AND text_source = 'ioi'
)
SELECT
    'L' || r.layer || 'H' || r.head AS head,
    r.fires,
    p.n_pairs AS pairs,
    string_agg(
        r.slice || ' (' || (100 * r.selected_share)::INTEGER || '%)', ', ' ORDER BY r.place
    ) AS slices_most_often_in_s,
    round(max(r.mean_term) FILTER (r.place = 1), 2) AS mean_term_of_the_first
FROM ranked AS r
JOIN pairs AS p USING (layer, head, fires)
WHERE r.place <= 4
GROUP BY r.layer, r.head, r.fires, p.n_pairs
ORDER BY
    max(p.n_pairs) FILTER (r.fires) OVER (PARTITION BY r.layer, r.head) DESC NULLS LAST,
    r.layer,
    r.head,
    r.fires DESC
LIMIT 24;
