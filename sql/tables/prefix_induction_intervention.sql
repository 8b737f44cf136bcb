-- formula: 2
-- below: layer < n_layers, head < n_heads
CREATE TABLE prefix_induction_intervention (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    edit VARCHAR CHECK (edit IN ('match', 'before_match', 'after_source')),
    n BIGINT NOT NULL CHECK (n >= 0),
    n_attended BIGINT NOT NULL,
    n_editable BIGINT NOT NULL,
    n_documents BIGINT NOT NULL CHECK (n_documents >= 0),
    mean_prefix_length DOUBLE CHECK (mean_prefix_length >= 2),
    attention_before DOUBLE CHECK (attention_before BETWEEN 0 AND 1.000001),
    attention_after DOUBLE CHECK (attention_after BETWEEN 0 AND 1.000001),
    attention_after_ci_low DOUBLE,
    attention_after_ci_high DOUBLE,
    mean_drop DOUBLE,
    drop_ci_low DOUBLE,
    drop_ci_high DOUBLE,
    excess_drop DOUBLE,
    excess_ci_low DOUBLE,
    excess_ci_high DOUBLE,
    still_attended_rate DOUBLE CHECK (still_attended_rate BETWEEN 0 AND 1),
    PRIMARY KEY (study, layer, head, edit),
    CHECK (n_documents <= n AND (n_documents = 0) = (n = 0)),
    CHECK (n <= n_editable AND n_editable <= n_attended),
    CHECK ((n = 0) = (attention_before IS NULL)),
    CHECK (attention_after_ci_low <= attention_after_ci_high),
    CHECK (drop_ci_low <= drop_ci_high),
    CHECK (excess_ci_low <= excess_ci_high),
    CHECK (abs(attention_before - attention_after - mean_drop) <= 1e-6),
    CHECK (edit = 'match' OR excess_drop IS NULL)
);
COMMENT ON TABLE prefix_induction_intervention IS 'One row per induction head and edit: attention to the induction source on real text before and after one token is replaced (Kissane et al. 2024, section 4.2). Cases: pairs (destination i, source s) of prefix_induction_corpus with prefix length p >= 2 and attention above 0.3, a random sample per head; heads that attend to the same cases share them, and all edits of a head are made of the same cases. The new token occurs elsewhere in the text and nowhere in the sequence, and is the same in all edits of a case. Raw weights. A head without cases has n = 0.';
COMMENT ON COLUMN prefix_induction_intervention.study IS 'Study the row belongs to';
COMMENT ON COLUMN prefix_induction_intervention.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prefix_induction_intervention.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prefix_induction_intervention.edit IS 'Token that is replaced. match: the one at s - 2, so that a prefix of exactly 1 token is left. Controls that leave the match as it is: before_match: the one at s - 1 - p, right before the first copy; after_source: the one at s + 2, as far behind the source as match is before it';
COMMENT ON COLUMN prefix_induction_intervention.n IS 'Cases edited';
COMMENT ON COLUMN prefix_induction_intervention.n_attended IS 'Cases found: pairs with prefix length >= 2 and attention above 0.3';
COMMENT ON COLUMN prefix_induction_intervention.n_editable IS 'Of these, the cases that all edits can be made of: before_match and after_source exist, are not BOS, and after_source lies before the second copy. The n cases are drawn from them';
COMMENT ON COLUMN prefix_induction_intervention.n_documents IS 'Documents that the destinations of the n cases lie in, which the intervals resample';
COMMENT ON COLUMN prefix_induction_intervention.mean_prefix_length IS 'Mean p of the n cases, not capped';
COMMENT ON COLUMN prefix_induction_intervention.attention_before IS 'Mean A[i, s] of the n cases in the text as it is';
COMMENT ON COLUMN prefix_induction_intervention.attention_after IS 'Mean A[i, s] of the n cases after the edit';
COMMENT ON COLUMN prefix_induction_intervention.attention_after_ci_low IS 'Lower end of the 95% percentile bootstrap interval of attention_after over documents; NULL for cases of one document';
COMMENT ON COLUMN prefix_induction_intervention.attention_after_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_intervention.mean_drop IS 'attention_before - attention_after. Since cases are chosen for high attention, any edit may lower it a little';
COMMENT ON COLUMN prefix_induction_intervention.drop_ci_low IS 'Lower end of the 95% percentile bootstrap interval of mean_drop over documents; NULL for cases of one document';
COMMENT ON COLUMN prefix_induction_intervention.drop_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_intervention.excess_drop IS 'For match: mean over cases of its drop minus the mean drop of both controls on the same case, which is what the longer match itself brings. NULL for the controls';
COMMENT ON COLUMN prefix_induction_intervention.excess_ci_low IS 'Lower end of the 95% percentile bootstrap interval of excess_drop over documents; NULL where that is, and for cases of one document';
COMMENT ON COLUMN prefix_induction_intervention.excess_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_intervention.still_attended_rate IS 'Share of the n cases with an attention above 0.3 after the edit';
