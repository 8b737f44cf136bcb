CREATE VIEW head_score_tests AS
SELECT
    study,
    layer,
    head,
    score,
    value,
    n,
    threshold,
    null_mean,
    null_sd,
    (value - null_mean) / nullif(null_sd, 0) AS null_z,
    coalesce(value > threshold AND value > null_mean + 3 * null_sd, false) AS passes,
    dataset
FROM (FROM head_scores UNION ALL BY NAME FROM ioi_head_scores);
COMMENT ON VIEW head_score_tests IS 'Every score of every head, of head_scores and ioi_head_scores, with the one rule for "the head does this": above the threshold and more than 3 standard deviations above the null mean.';
COMMENT ON COLUMN head_score_tests.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_score_tests.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_score_tests.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_score_tests.score IS 'Name of the score, defined in head_score_definitions';
COMMENT ON COLUMN head_score_tests.value IS 'Value of the score, in the range that head_score_definitions gives';
COMMENT ON COLUMN head_score_tests.n IS 'Number of terms behind the value, counted as head_score_definitions says';
COMMENT ON COLUMN head_score_tests.threshold IS 'Value above which the head meets the condition that the score stands for in head_role_conditions; NULL: a score without a role';
COMMENT ON COLUMN head_score_tests.null_mean IS 'Mean of the score under its null (head_score_definitions)';
COMMENT ON COLUMN head_score_tests.null_sd IS 'Standard deviation of the score under its null, for the same n';
COMMENT ON COLUMN head_score_tests.null_z IS 'Distance from the null in its standard deviations: (value - null_mean) / null_sd; NULL where null_sd is 0';
COMMENT ON COLUMN head_score_tests.passes IS 'value > threshold and value > null_mean + 3 null_sd; false without a threshold';
COMMENT ON COLUMN head_score_tests.dataset IS 'What the score was computed on';
