-- Which singular vectors carry a head's score in each prompt, and how much: its root pair where it
-- fires and where it does not. For the heads that do both most often.
WITH pairs AS (
    SELECT
        layer,
        head,
        destination_role,
        source_role,
        fires,
        prompt,
        slices,
        slice_terms,
        count(*) FILTER (fires) OVER node AS n_firing,
        count(*) FILTER (NOT fires) OVER node AS n_silent
    FROM attention_slices
    WHERE study = $study AND task = $task AND is_root
    WINDOW node AS (PARTITION BY layer, head, destination_role, source_role)
),
chosen AS (
    SELECT
        *,
        dense_rank() OVER (
            ORDER BY
                least(n_firing, n_silent) DESC,
                n_firing DESC,
                layer,
                head,
                destination_role,
                source_role
        ) AS place
    FROM pairs
    QUALIFY place <= 3
),
used AS (
    SELECT *, unnest(slices) AS slice
    FROM chosen
)
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' → ' || source_role AS pair,
    fires,
    prompt,
    slice,
    slice_terms[slice + 1] AS term,
    CASE WHEN fires THEN n_firing ELSE n_silent END AS n_pairs
FROM used
ORDER BY place, fires DESC, prompt, slice;
