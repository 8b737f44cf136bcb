-- Heads are kept only where the contributions of all heads of their side sum to more than 0
SELECT e.task, e.prompt, downstream_layer, downstream_head, e.destination, e.source, side
FROM trace_edges AS e
JOIN attention_slices AS s
    ON s.study = e.study AND s.task = e.task AND s.prompt = e.prompt
    AND s.layer = e.downstream_layer AND s.head = e.downstream_head
    AND s.destination = e.destination AND s.source = e.source
WHERE e.study = getvariable('study') AND kept
    AND (if(side = 'destination', destination_heads, source_heads) > 0 AND contribution > 0) IS NOT TRUE;
