-- Which head is strongest in each score (copy suppression, successor, movers, ...), and is it beyond its null?
SELECT
    score,
    arg_max('L' || layer || 'H' || head, value) AS head,
    round(max(value), 3) AS value,
    round(arg_max(threshold, value), 3) AS threshold,
    round(arg_max(null_mean, value), 3) AS null_mean,
    round(arg_max(null_z, value), 1) AS null_z,
    count(*) FILTER (WHERE passes) AS n_heads_pass,
    count(*) AS n_heads
FROM head_score_tests
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY score
ORDER BY n_heads_pass DESC, score;
