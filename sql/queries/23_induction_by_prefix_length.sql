-- How many matching tokens do induction heads need, on random tokens and in real text?
SELECT
    h.layer,
    h.head,
    h.prefix_class,
    round(h.score_1, 3) AS score_1,
    round(h.score_1_ci_low, 2) || ' to ' || round(h.score_1_ci_high, 2) AS interval_1,
    round(h.score_2, 3) AS score_2,
    round(h.score_longest, 3) AS score_longest,
    round(h.dla_excess_1, 3) AS logits_1,
    round(h.dla_excess_longer, 3) AS logits_longer,
    round(sum(c.attention_share) FILTER (WHERE c.prefix_length = 1), 3) AS text_share_1,
    round(sum(c.attention_share) FILTER (WHERE c.prefix_length >= 2), 3) AS text_share_longer,
    round(max(c.attended_rate) FILTER (WHERE c.prefix_length = 1), 3) AS attends_1,
    round(
        sum(c.n_attended) FILTER (WHERE c.prefix_length >= 2)
        / sum(c.n) FILTER (WHERE c.prefix_length >= 2),
        3
    ) AS attends_longer
FROM prefix_induction_heads AS h
JOIN prefix_induction_corpus AS c USING (study, layer, head)
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY ALL
ORDER BY score_longest DESC, layer, head
LIMIT 20;
