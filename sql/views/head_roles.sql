CREATE VIEW head_roles AS
WITH needed AS (
    SELECT role, count(*) AS n_conditions
    FROM head_role_conditions
    GROUP BY role
)
SELECT
    t.study,
    t.layer,
    t.head,
    c.role,
    arg_min(t.score, c.number) AS score,
    arg_min(t.value, c.number) AS value,
    arg_min(t.threshold, c.number) AS threshold,
    min(t.null_z) AS null_z,
    count(*) AS n_conditions,
    arg_min(t.dataset, c.number) AS dataset
FROM head_score_tests AS t
JOIN head_role_conditions AS c USING (score)
JOIN needed AS n USING (role)
WHERE t.passes
GROUP BY t.study, t.layer, t.head, c.role, n.n_conditions
HAVING count(*) = n.n_conditions;
COMMENT ON VIEW head_roles IS 'One row per head and role: all scores that the role needs (head_role_conditions) are above their threshold and more than 3 standard deviations above their null mean. A head may have several roles or none; about 90% of heads of GPT-2 small have several (Kissane et al. 2024, section 4.1).';
COMMENT ON COLUMN head_roles.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_roles.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_roles.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_roles.role IS 'Role label, as in head_role_conditions';
COMMENT ON COLUMN head_roles.score IS 'The role''s first condition; the name of the score that gives the role, where it needs one only';
COMMENT ON COLUMN head_roles.value IS 'Value of that score';
COMMENT ON COLUMN head_roles.threshold IS 'Threshold that the value exceeds';
COMMENT ON COLUMN head_roles.null_z IS 'Distance from the null in its standard deviations, (value - null_mean) / null_sd, of the condition that is closest to its null; NULL where null_sd is 0 throughout';
COMMENT ON COLUMN head_roles.n_conditions IS 'Number of scores that the role needs, all of which the head passes';
COMMENT ON COLUMN head_roles.dataset IS 'What the first condition was computed on';
