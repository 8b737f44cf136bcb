-- Which singular vectors make up the score of a head's root pairs, and how much of it do those of S carry (FC24, Fig. 1)?
WITH terms AS (
    SELECT
        layer,
        head,
        destination_role || ' -> ' || source_role AS pair,
        fires,
        prompt,
        n_slices,
        len(slice_terms) AS singular_vectors,
        list_sum(slice_terms) AS score,
        list_sum([slice_terms[k + 1] FOR k IN slices]) AS of_s,
        list_sum([abs(term) FOR term IN slice_terms]) AS absolute
    FROM attention_slices
    WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi' AND is_root
)
SELECT
    'L' || layer || 'H' || head AS head,
    pair,
    fires,
    count(*) AS prompts,
    round(avg(n_slices), 1) AS mean_slices_in_s,
    max(singular_vectors) AS singular_vectors,
    round(avg(score), 2) AS mean_score,
    round(avg(of_s), 2) AS mean_sum_over_s,
    round(avg(score - of_s), 2) AS mean_sum_of_the_others,
    round(avg(absolute), 2) AS mean_sum_of_sizes
FROM terms
GROUP BY layer, head, pair, fires
ORDER BY layer, head, pair, fires DESC;
