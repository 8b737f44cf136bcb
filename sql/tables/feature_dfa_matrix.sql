-- formula: 1
-- per: site
-- rows: one per head for each feature, rank
-- references: feature_dfa (study, layer, feature, rank, sequence, position)
-- below: layer < n_layers, feature < d_sae, head < n_heads
CREATE TABLE feature_dfa_matrix (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    head INTEGER CHECK (head >= 0),
    dfa_by_source FLOAT[] NOT NULL,
    PRIMARY KEY (study, layer, feature, rank, head),
    CHECK (len(dfa_by_source) = position + 1)
);
COMMENT ON TABLE feature_dfa_matrix IS 'One row per feature, example and head: the whole head x source matrix of direct feature attribution, DFA(head k, source s) = A_k[D, s] (v_k[s] . w_k) (K24 section 2), for the first few top examples of every feature (setting features.dfa_matrix_examples). Signed. Over sources a row sums to its element of feature_dfa.dfa_by_head, over heads the rows sum to feature_dfa.dfa_by_source; the sum of all + feature_dfa.constant is the pre-activation.';
COMMENT ON COLUMN feature_dfa_matrix.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dfa_matrix.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_dfa_matrix.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_dfa_matrix.rank IS 'Rank of the example in feature_top_examples';
COMMENT ON COLUMN feature_dfa_matrix.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_dfa_matrix.position IS 'Destination D: the position at which the feature is active';
COMMENT ON COLUMN feature_dfa_matrix.head IS 'Head k of the layer';
COMMENT ON COLUMN feature_dfa_matrix.dfa_by_source IS 'Contribution of this head at each source position 0 .. D to the pre-activation, signed, in units of z; element = position';
