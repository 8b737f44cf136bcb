CREATE VIEW attention_heads AS
WITH every AS (
    SELECT DISTINCT study, layer, head
    FROM head_scores
),
roles AS (
    SELECT study, layer, head, list(role ORDER BY role) AS roles
    FROM head_roles
    GROUP BY study, layer, head
),
circuit AS (
    SELECT study, upstream_layer AS layer, upstream_head AS head, task
    FROM trace_graph
    UNION
    SELECT study, downstream_layer, downstream_head, task
    FROM trace_graph
),
tasks AS (
    SELECT study, layer, head, list(DISTINCT task ORDER BY task) AS circuit_tasks
    FROM circuit
    GROUP BY study, layer, head
)
SELECT
    study,
    layer,
    head,
    'L' || layer || 'H' || head AS head_name,
    coalesce(roles.roles, []) AS head_role_names,
    coalesce(tasks.circuit_tasks, []) AS circuit_tasks
FROM every
LEFT JOIN roles USING (study, layer, head)
LEFT JOIN tasks USING (study, layer, head);
COMMENT ON VIEW attention_heads IS 'One row per attention head of a study, with the name by which pages and interventions write it.';
COMMENT ON COLUMN attention_heads.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_heads.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_heads.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_heads.head_name IS 'L2H3 is head 3 of layer 2';
COMMENT ON COLUMN attention_heads.head_role_names IS 'Its roles, as in head_roles; empty where it has none';
COMMENT ON COLUMN attention_heads.circuit_tasks IS 'Tasks in whose traced circuit it is (trace_graph); empty where it is in none';
