CREATE VIEW head_roles AS
SELECT
    study,
    layer,
    head,
    score AS role,
    score,
    value,
    threshold,
    (value - null_mean) / nullif(null_sd, 0) AS null_z,
    dataset
FROM head_scores
WHERE value > threshold AND value > null_mean + 3 * null_sd;
COMMENT ON VIEW head_roles IS 'One row per head and role: scores above their threshold and more than 3 standard deviations above their null mean. A head may have several roles or none; about 90% of heads of GPT-2 small have several (Kissane et al. 2024, section 4.1).';
COMMENT ON COLUMN head_roles.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_roles.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_roles.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_roles.role IS 'Role label: the name of the score that gives it';
COMMENT ON COLUMN head_roles.score IS 'Score that gives the role; defined in head_scores.score';
COMMENT ON COLUMN head_roles.value IS 'Value of that score';
COMMENT ON COLUMN head_roles.threshold IS 'Threshold that the value exceeds';
COMMENT ON COLUMN head_roles.null_z IS 'Distance from the null in its standard deviations: (value - null_mean) / null_sd; NULL where null_sd is 0';
COMMENT ON COLUMN head_roles.dataset IS 'What the score was computed on';
