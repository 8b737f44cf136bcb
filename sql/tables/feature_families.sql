-- formula: 5
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae, head < n_heads
CREATE TABLE feature_families (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    family VARCHAR CHECK (family IN ('induction', 'high_level_context', 'local_context', 'duplicate_token', 'successor', 'name_mover', 'suppression', 'single_token', 'n_gram')),
    measure VARCHAR,
    value DOUBLE CHECK (value >= 0),
    x BIGINT CHECK (x >= 0),
    n BIGINT NOT NULL CHECK (n >= 0),
    n_documents BIGINT CHECK (n_documents >= 0),
    ci_low DOUBLE CHECK (ci_low BETWEEN 0 AND 1),
    ci_high DOUBLE CHECK (ci_high BETWEEN 0 AND 1),
    null_value DOUBLE CHECK (null_value >= 0),
    threshold DOUBLE,
    min_n BIGINT NOT NULL CHECK (min_n >= 0),
    meets_threshold BOOLEAN,
    required BOOLEAN NOT NULL,
    head INTEGER CHECK (head >= 0),
    text VARCHAR,
    PRIMARY KEY (study, layer, feature, family, measure),
    CHECK (x <= n),
    CHECK (n_documents <= n AND (n_documents IS NULL OR x IS NOT NULL)),
    CHECK (n_documents IS NULL OR (n_documents < 2) = (ci_low IS NULL)),
    CHECK (ci_low <= ci_high),
    CHECK (meets_threshold IS NULL OR (n >= min_n AND value IS NOT NULL AND threshold IS NOT NULL))
);
COMMENT ON TABLE feature_families IS 'One row per feature that fired and measure: what speaks for the feature belonging to a family (K24 section 3.3, appendices F and I). Raw values with n, threshold and what chance would give; the labels are the view feature_family_labels, and a feature may have several. Only the induction selection and behaviour come from K24; every other rule is a heuristic of this project, since the paper finds those families by hand. Tokens: those of feature_statistics (no position 0, no BOS). DFA measures: over the examples in feature_dfa; the strongest source is the position with the largest DFA summed over heads, among positions 1 .. D without BOS.';
COMMENT ON COLUMN feature_families.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_families.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_families.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_families.family IS 'Family that the measure speaks for: induction, high_level_context, local_context, duplicate_token, successor, name_mover, suppression, single_token, n_gram';
COMMENT ON COLUMN feature_families.measure IS 'Which measure. induction_attribution: largest head attribution (feature_head_attribution) to a head of the layer with the role induction (head_roles); 0 where the layer has none. induction_attribution_total: their sum over those heads. induction_per_occurrence (K24''s pass rate): B = the token with the largest logit effect; over up to 200 sequences with B at least twice (a seeded choice), the share of the occurrences of B after the first on whose preceding token the feature is active; occurrences right after BOS are left out. induction_per_sequence: of the same sequences, the share in which the feature is silent on the token before the first B and active on the token before every later B. induction_per_occurrence_same_prefix, induction_per_sequence_same_prefix: the same over sequences in which a bigram A B occurs at least twice (the first to come back), looking at its occurrences only: the paper does not say whether the token before must be the same. run_length: mean length of stretches of consecutive active tokens. density_where_active: share of tokens active within the sequences where the feature is active at all. near_dfa_share: share of positive DFA that comes from the current token and the 5 before it, mean over examples. source_distance: tokens from the strongest source (BOS apart) to the example, mean over examples. run_end_token_share: of the stretches of consecutive active tokens that end within their sequence, the share that ends at the same token, the first at which the feature is silent again (the most frequent one, the text). repeats_current_token: share of examples whose strongest source is an earlier position with the current token. promotes_successor: share of examples whose strongest source is a token (number, number word, ordinal, day, month, capital letter) whose successor is among the promoted tokens of feature_logit_effects. promotes_source_token: share of examples whose strongest source is an earlier position with one of the promoted tokens. promoted_names: share of the promoted tokens that are one capital and then small letters. suppresses_source_token: share of examples whose strongest source has one of the suppressed (bottom) tokens. negative_share: size of the strongest negative logit effect / (that + the strongest positive one). token_overlap, ngram_overlap: Jaccard index of the tokens at which the feature is active and those that end its best single token, or its best n-gram of 2 or 3 tokens';
COMMENT ON COLUMN feature_families.value IS 'The measure; NULL where it is not defined (no example, no logit effect)';
COMMENT ON COLUMN feature_families.x IS 'Where the value is a share: value = x / n; else NULL';
COMMENT ON COLUMN feature_families.n IS 'Terms behind the value: induction heads, examples, occurrences, runs, tokens; negative_share: the 2 effects';
COMMENT ON COLUMN feature_families.n_documents IS 'Where the value is a share of terms of text: documents with a term, which the interval resamples (an example or a stretch that lies in two counts to one); else NULL';
COMMENT ON COLUMN feature_families.ci_low IS 'Lower bound of the 95% interval of x / n over documents, whose tokens are not independent: Clopper & Pearson''s at as many independent terms as have the variance that resampling documents gives (Korn & Graubard 1998); NULL with fewer than 2 documents, and where the value is no share. promoted_names, whose terms are no text: Clopper & Pearson''s';
COMMENT ON COLUMN feature_families.ci_high IS 'Upper bound of the same interval';
COMMENT ON COLUMN feature_families.null_value IS 'What chance gives. source_distance and the other DFA measures: a source drawn uniformly from 1 .. D without BOS. run_length: tokens drawn independently with the density within active sequences. density_where_active: the density over all tokens. Overlaps: as many tokens drawn at random. promoted_names: share of the vocabulary that looks like a name. NULL: none; induction has a control group instead (induction_test)';
COMMENT ON COLUMN feature_families.threshold IS 'Value from which the measure passes; NULL: stored without judgement. 0.6 for induction is K24''s';
COMMENT ON COLUMN feature_families.min_n IS 'Terms below which meets_threshold stays NULL';
COMMENT ON COLUMN feature_families.meets_threshold IS 'value >= threshold (induction_per_occurrence, its variants and negative_share: value > threshold); NULL with n below min_n or without a value or threshold';
COMMENT ON COLUMN feature_families.required IS 'Whether the label of the family needs this measure to pass';
COMMENT ON COLUMN feature_families.head IS 'induction_attribution: the induction head with the largest attribution; else NULL';
COMMENT ON COLUMN feature_families.text IS 'Token or n-gram that the value is about: B for induction pass rates, the ending token for run_end_token_share, the best n-gram for overlaps; else NULL';
