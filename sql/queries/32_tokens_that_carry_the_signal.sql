-- In the slices that a traced node agrees on, which tokens carry the signal that its key reads?
SELECT
    'L' || layer || 'H' || head AS head,
    destination_role || ' -> ' || source_role AS pair,
    n_dimensions,
    position_role,
    n,
    round(mean_signal, 2) AS mean_signal,
    round(sd_signal, 2) AS sd_signal
FROM attention_token_signal
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi' AND side = 'source'
QUALIFY row_number() OVER (PARTITION BY layer, head, pair ORDER BY mean_signal DESC) <= 3
ORDER BY head, pair, mean_signal DESC;
