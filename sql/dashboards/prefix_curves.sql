-- Induction score over the number of matching tokens, for every head.
SELECT
    'L' || p.layer || 'H' || p.head AS head,
    h.prefix_class,
    p.prefix_length,
    p.mean_attention,
    p.attention_ci_low,
    p.attention_ci_high,
    p.null_mean + 3 * p.null_sd AS above_chance,
    p.attention_gain,
    p.dla_excess,
    p.n
FROM prefix_induction AS p
JOIN prefix_induction_heads AS h USING (study, layer, head)
WHERE p.study = $study
ORDER BY max(p.mean_attention) OVER (PARTITION BY p.layer, p.head) DESC, p.layer, p.head,
    p.prefix_length;
