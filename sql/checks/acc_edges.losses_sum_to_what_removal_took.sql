-- Under acc++ the attention that edges of a side lose is what removal took from the pair
SELECT p.task, p.prompt, p.layer, p.head, p.destination, p.source, e.side, sum(e.edge_weight) AS lost
FROM acc_pairs AS p
JOIN acc_edges AS e
    ON p.study = e.study AND p.task = e.task AND p.trace_rule = e.trace_rule
    AND p.prompt = e.prompt AND p.layer = e.downstream_layer AND p.head = e.downstream_head
    AND p.destination = e.destination AND p.source = e.source
WHERE p.study = getvariable('study') AND p.trace_rule = 'acc++'
GROUP BY ALL
HAVING (abs(sum(e.edge_weight) - any_value(p.attention - CASE e.side
    WHEN 'destination' THEN p.destination_attention_left
    ELSE p.source_attention_left
END)) <= 1e-5 + 16 * getvariable('model.rounding')) IS NOT TRUE;
