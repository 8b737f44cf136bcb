-- Edges lead to pairs that were traced, with the slices and paths of these
SELECT DISTINCT e.task, e.prompt, downstream_layer, downstream_head, e.destination, e.source
FROM trace_edges AS e
LEFT JOIN attention_slices AS s
    ON s.study = e.study AND s.task = e.task AND s.prompt = e.prompt
    AND s.layer = e.downstream_layer AND s.head = e.downstream_head
    AND s.destination = e.destination AND s.source = e.source
WHERE e.study = getvariable('study') AND (e.slices = s.slices AND e.path_multiplicity = s.path_multiplicity) IS NOT TRUE;
