-- formula: 1
-- per: site
-- references: feature_top_examples (study, layer, feature, rank, sequence, position)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_dfa (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    pre_activation DOUBLE NOT NULL,
    constant DOUBLE NOT NULL,
    dfa_by_head FLOAT[] NOT NULL,
    dfa_by_source FLOAT[] NOT NULL,
    identity_error DOUBLE NOT NULL CHECK (identity_error >= 0),
    PRIMARY KEY (study, layer, feature, rank),
    CHECK (len(dfa_by_source) = position + 1)
);
COMMENT ON TABLE feature_dfa IS 'One row per top example of a feature: direct feature attribution, the exact split of the feature''s pre-activation over heads and source positions, DFA(head k, source s) = A_k[D, s] (v_k[s] . w_k) with attention pattern A, values v, destination D and w_k the slice of the feature''s W_enc column for head k (K24 section 2). Signed. Attention patterns are taken as given.';
COMMENT ON COLUMN feature_dfa.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dfa.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_dfa.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_dfa.rank IS 'Rank of the example in feature_top_examples';
COMMENT ON COLUMN feature_dfa.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_dfa.position IS 'Destination D: the position at which the feature is active';
COMMENT ON COLUMN feature_dfa.pre_activation IS 'Pre-activation of the feature at D, w . z_cat + constant, from the z of the forward pass of the raw model, in units of z';
COMMENT ON COLUMN feature_dfa.constant IS 'Part of the pre-activation that no source position has: b_enc - w . b_dec';
COMMENT ON COLUMN feature_dfa.dfa_by_head IS 'Contribution of each head, summed over sources (w_k . z_k), signed; element = head. Sum + constant = pre_activation';
COMMENT ON COLUMN feature_dfa.dfa_by_source IS 'Contribution of each source position 0 .. D, summed over heads, signed; element = position. Sum + constant = pre_activation';
COMMENT ON COLUMN feature_dfa.identity_error IS 'abs(sum of DFA over heads and sources + constant - pre_activation): rounding only, when patterns and values explain z';
