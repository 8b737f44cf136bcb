CREATE VIEW head_role_conditions AS
SELECT role, number, score
FROM (
    VALUES
        ('previous_token', 0, 'previous_token'),
        ('duplicate_token', 0, 'duplicate_token'),
        ('induction', 0, 'induction'),
        ('attention_sink', 0, 'attention_sink'),
        ('positional', 0, 'positional'),
        ('copying', 0, 'copying'),
        ('copying_effective', 0, 'copying_effective'),
        ('copy_suppression', 0, 'copy_suppression_ov'),
        ('copy_suppression', 1, 'copy_suppression_qk'),
        ('successor', 0, 'successor'),
        ('name_copy', 0, 'name_copy'),
        ('name_mover', 0, 'ioi_direct_effect'),
        ('name_mover', 1, 'ioi_attention_io'),
        ('name_mover', 2, 'name_copy'),
        ('negative_mover', 0, 'negative_copy'),
        ('negative_mover', 1, 'ioi_negative_effect'),
        ('backup_mover', 0, 'ioi_backup_effect'),
        ('s_inhibition', 0, 'ioi_s_inhibition'),
        ('s_inhibition', 1, 'ioi_attention_s2')
) AS conditions (role, number, score);
COMMENT ON VIEW head_role_conditions IS 'Which scores a role needs: a head has the role when it passes all of them (head_score_tests). Name movers write the answer at END, attend to it and copy names; negative movers write against the names they attend to and against the answer; backup movers write the answer when the movers are knocked out; S-inhibition heads attend END -> S2 and steer the movers'' queries towards the answer (Wang et al. 2022).';
COMMENT ON COLUMN head_role_conditions.role IS 'Role label';
COMMENT ON COLUMN head_role_conditions.number IS 'Number of the condition; 0: the score that head_roles shows for the role';
COMMENT ON COLUMN head_role_conditions.score IS 'Name of the score, defined in head_score_definitions';
