-- Which heads rest on the first position, does it need BOS, and what do they write because of it?
SELECT
    'L' || layer || 'H' || head AS head,
    round(any_value(mean_attention) FILTER (WHERE tokens = 'natural' AND with_bos), 2) AS natural_text,
    round(any_value(mean_attention) FILTER (WHERE tokens = 'random' AND with_bos), 2) AS random_tokens,
    round(any_value(mean_attention) FILTER (WHERE tokens = 'natural' AND NOT with_bos), 2) AS without_bos,
    round(any_value(uniform_attention) FILTER (WHERE tokens = 'natural' AND with_bos), 2)
        AS uniform_attention,
    round(any_value(query_key_cosine) FILTER (WHERE tokens = 'natural' AND with_bos), 2)
        AS query_key_cosine,
    round(any_value(value_norm) FILTER (WHERE tokens = 'natural' AND with_bos), 2) AS value_norm,
    round(any_value(output_norm) FILTER (WHERE tokens = 'natural' AND with_bos), 2) AS output_norm
FROM attention_sinks
WHERE study = coalesce(getvariable('study'), 'organism') AND position = 0
GROUP BY layer, head
ORDER BY max(mean_attention) FILTER (WHERE tokens = 'natural' AND with_bos) DESC
LIMIT 20;
