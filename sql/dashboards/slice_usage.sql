-- Which singular vectors the heads with most firing pairs select on the prompts, firing and not.
WITH most AS (
    SELECT layer, head, any_value(n_pairs) AS n_firing
    FROM attention_slice_usage
    WHERE study = $study AND text_source = 'ioi' AND fires
    GROUP BY layer, head
    ORDER BY n_firing DESC, layer, head
    LIMIT 8
)
SELECT
    'L' || u.layer || 'H' || u.head AS head,
    u.fires,
    u.slice,
    u.selected_share,
    u.mean_term_share,
    u.n_pairs
FROM attention_slice_usage AS u
JOIN most USING (layer, head)
WHERE u.study = $study AND u.text_source = 'ioi' AND u.slice < 16
ORDER BY most.n_firing DESC, u.layer, u.head, u.fires DESC, u.slice;
