-- Terms of the attention score of single pairs, one per singular vector: for the traced heads and
-- roles that fire and do not fire most often, the pair with the median score of either kind.
WITH pairs AS (
    SELECT
        prompt,
        layer,
        head,
        destination,
        source,
        destination_role,
        source_role,
        fires,
        attention_score,
        count(*) FILTER (fires) OVER node AS n_firing,
        count(*) FILTER (NOT fires) OVER node AS n_silent
    FROM attention_slices
    WHERE study = $study AND task = $task
    WINDOW node AS (PARTITION BY layer, head, destination_role, source_role)
),
typical AS (
    SELECT *
    FROM pairs
    QUALIFY row_number() OVER (
        PARTITION BY layer, head, destination_role, source_role, fires
        ORDER BY attention_score, prompt, destination, source
    ) = (CASE WHEN fires THEN n_firing ELSE n_silent END + 1) // 2
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
    FROM typical
    QUALIFY place <= 3
),
terms AS (
    SELECT
        c.*,
        s.slices,
        s.attention,
        s.trace_rule,
        unnest(s.slice_terms) AS term,
        unnest(range(len(s.slice_terms))) AS slice
    FROM chosen AS c
    JOIN attention_slices AS s USING (prompt, layer, head, destination, source)
    WHERE s.study = $study AND s.task = $task
)
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' → ' || source_role AS pair,
    fires,
    prompt,
    slice,
    term,
    list_contains(slices, slice) AS selected,
    attention,
    attention_score,
    CASE WHEN fires THEN n_firing ELSE n_silent END AS n_pairs,
    trace_rule
FROM terms
ORDER BY place, fires DESC, slice;
