-- formula: 3
-- rows: one per head for each prefix_length
-- below: layer < n_layers, head < n_heads
CREATE TABLE prefix_induction_corpus (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    prefix_length INTEGER CHECK (prefix_length BETWEEN 0 AND 9),
    n BIGINT NOT NULL CHECK (n >= 0),
    n_documents BIGINT NOT NULL CHECK (n_documents >= 0),
    mean_attention DOUBLE CHECK (mean_attention BETWEEN 0 AND 1.000001),
    attention_ci_low DOUBLE,
    attention_ci_high DOUBLE,
    n_attended BIGINT NOT NULL,
    attended_rate DOUBLE CHECK (attended_rate BETWEEN 0 AND 1),
    attended_rate_ci_low DOUBLE CHECK (attended_rate_ci_low >= 0),
    attended_rate_ci_high DOUBLE CHECK (attended_rate_ci_high <= 1),
    attended_share DOUBLE CHECK (attended_share BETWEEN 0 AND 1),
    attended_share_ci_low DOUBLE CHECK (attended_share_ci_low >= 0),
    attended_share_ci_high DOUBLE CHECK (attended_share_ci_high <= 1),
    attention_share DOUBLE CHECK (attention_share BETWEEN 0 AND 1.000001),
    attention_share_ci_low DOUBLE,
    attention_share_ci_high DOUBLE,
    n_next BIGINT NOT NULL,
    source_is_next_rate DOUBLE CHECK (source_is_next_rate BETWEEN 0 AND 1),
    dataset VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, head, prefix_length),
    CHECK (n_attended BETWEEN 0 AND n AND n_next BETWEEN 0 AND n AND n_documents <= n),
    CHECK ((n = 0) = (mean_attention IS NULL)),
    CHECK (attention_ci_low <= attention_ci_high),
    CHECK (attended_rate_ci_low <= attended_rate_ci_high AND attended_share_ci_low <= attended_share_ci_high),
    CHECK (attention_share_ci_low <= attention_share_ci_high)
);
COMMENT ON TABLE prefix_induction_corpus IS 'One row per attention head and prefix length 0 .. 9: attention to the pairs (destination i, source s <= i) of held-out text. A pair with s < i is an induction case where the token at s - 1 is the token at i (Kissane et al. 2024, section 4.2); its prefix length is the number of tokens that match, going back from i and from s - 1 together. BOS takes no part, by position and by id, and matches whose text runs back into a BOS on both sides are left out. Raw weights.';
COMMENT ON COLUMN prefix_induction_corpus.study IS 'Study the row belongs to';
COMMENT ON COLUMN prefix_induction_corpus.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prefix_induction_corpus.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prefix_induction_corpus.prefix_length IS 'Tokens that match; 9 stands for 9 or more; 0 for every other pair, that of a token with itself included';
COMMENT ON COLUMN prefix_induction_corpus.n IS 'Pairs of this prefix length; the same for every head. A token that occurred several times before makes several pairs';
COMMENT ON COLUMN prefix_induction_corpus.n_documents IS 'Documents with such a pair, which the intervals resample; a pair is of its destination''s document';
COMMENT ON COLUMN prefix_induction_corpus.mean_attention IS 'Mean attention probability over these pairs; NULL without a pair';
COMMENT ON COLUMN prefix_induction_corpus.attention_ci_low IS 'Lower end of the 95% percentile bootstrap interval of attention over documents, whose pairs are not independent; NULL below two documents with such a pair';
COMMENT ON COLUMN prefix_induction_corpus.attention_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_corpus.n_attended IS 'Of the n pairs, those with an attention above 0.3';
COMMENT ON COLUMN prefix_induction_corpus.attended_rate IS 'n_attended / n: how often the head attends there when it could';
COMMENT ON COLUMN prefix_induction_corpus.attended_rate_ci_low IS 'Lower end of the 95% interval of attended_rate over documents: Clopper & Pearson''s at as many independent pairs as have the variance that resampling documents gives (Korn & Graubard 1998); NULL below two documents with such a pair';
COMMENT ON COLUMN prefix_induction_corpus.attended_rate_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_corpus.attended_share IS 'n_attended over the sum of the head''s n_attended of all prefix lengths: where the head attends when it attends anywhere; sums to 1 over the head''s rows. NULL where it never does';
COMMENT ON COLUMN prefix_induction_corpus.attended_share_ci_low IS 'Lower end of the same interval of attended_share; NULL where the head attends in fewer than two documents';
COMMENT ON COLUMN prefix_induction_corpus.attended_share_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_corpus.attention_share IS 'The same for the attention itself: the share of the head''s attention outside BOS that rests on pairs of this prefix length';
COMMENT ON COLUMN prefix_induction_corpus.attention_share_ci_low IS 'Lower end of the 95% percentile bootstrap interval of attention_share over documents; NULL below two documents';
COMMENT ON COLUMN prefix_induction_corpus.attention_share_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_corpus.n_next IS 'Of the n pairs, those whose destination is followed by a token that is not BOS; the same for every head';
COMMENT ON COLUMN prefix_induction_corpus.source_is_next_rate IS 'Share of the n_next pairs whose source token is the token that follows the destination: how often induction would be right; the same for every head';
COMMENT ON COLUMN prefix_induction_corpus.dataset IS 'Text: sequences x tokens';
