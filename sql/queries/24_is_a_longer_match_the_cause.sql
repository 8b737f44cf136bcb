-- Do induction heads let go when the match in real text is cut to one token, more than when another token changes?
SELECT
    i.layer,
    i.head,
    h.prefix_class,
    i.n,
    round(max(i.attention_before), 3) AS before,
    round(max(i.attention_after) FILTER (WHERE i.edit = 'match'), 3) AS match_cut_to_one,
    round(max(i.attention_after) FILTER (WHERE i.edit = 'before_match'), 3) AS token_before_match,
    round(max(i.attention_after) FILTER (WHERE i.edit = 'after_source'), 3) AS token_after_source,
    round(max(i.excess_drop), 3) AS drop_beyond_controls,
    round(max(i.excess_ci_low), 3) AS ci_low,
    round(max(i.excess_ci_high), 3) AS ci_high
FROM prefix_induction_intervention AS i
JOIN prefix_induction_heads AS h USING (study, layer, head)
WHERE study = coalesce(getvariable('study'), 'organism')
    AND i.n > 0
GROUP BY ALL
ORDER BY drop_beyond_controls DESC, layer, head;
