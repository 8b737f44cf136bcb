-- Edges of the model's computational graph: embedding, heads with q, k and v apart, MLPs, logits
-- statistic: edges of the graph
-- position: none
-- run: model
SELECT 'edges' AS key, count(DISTINCT edge_number)::DOUBLE AS value
FROM edge_attribution
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
HAVING count(*) > 0;
