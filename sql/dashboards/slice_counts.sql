-- How many slices a firing pair needs, on the prompts and on unspecific text: all heads together,
-- and the heads with most firing pairs on the prompts.
WITH most AS (
    SELECT layer, head, sum(n_pairs) AS n_firing
    FROM attention_slice_counts
    WHERE study = $study AND text_source = 'ioi'
    GROUP BY layer, head
    ORDER BY n_firing DESC, layer, head
    LIMIT 6
),
counts AS (
    SELECT text_source, 'all heads' AS head, NULL AS n_firing, n_slices, n_pairs
    FROM attention_slice_counts
    WHERE study = $study
    UNION ALL
    SELECT c.text_source, 'L' || c.layer || 'H' || c.head, most.n_firing, c.n_slices, c.n_pairs
    FROM attention_slice_counts AS c
    JOIN most USING (layer, head)
    WHERE c.study = $study
)
SELECT
    text_source,
    head,
    n_slices,
    sum(n_pairs) AS n_pairs,
    sum(n_pairs) / sum(sum(n_pairs)) OVER (PARTITION BY text_source, head) AS share_of_pairs
FROM counts
GROUP BY text_source, head, n_firing, n_slices
ORDER BY text_source DESC, n_firing DESC NULLS FIRST, head, n_slices;
