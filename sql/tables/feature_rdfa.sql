-- formula: 4
-- per: site
-- references: feature_top_examples (study, layer, feature, rank, sequence, position)
-- references: study, layer, feature, rank, parent -> feature_rdfa (study, layer, feature, rank, node)
-- below: layer < n_layers, feature < d_sae, at_layer < n_layers, at_head < n_heads, token_id < d_vocab, strongest_head < n_heads
CREATE TABLE feature_rdfa (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    position INTEGER NOT NULL CHECK (position >= 1),
    node INTEGER CHECK (node >= 0),
    parent INTEGER CHECK (parent >= 0),
    depth INTEGER NOT NULL CHECK (depth >= 0),
    node_kind VARCHAR NOT NULL CHECK (node_kind IN ('feature', 'source', 'embedding', 'position', 'attention', 'mlp', 'encoder_bias', 'value_bias', 'sae_bias', 'output_bias', 'sae_error', 'residual_feature', 'residual_error', 'residual_bias', 'rest')),
    at_layer INTEGER CHECK (at_layer >= 0),
    at_head INTEGER CHECK (at_head >= 0),
    at_feature INTEGER CHECK (at_feature >= 0),
    at_position INTEGER CHECK (at_position >= 0),
    token_id INTEGER CHECK (token_id >= 0),
    token VARCHAR,
    strongest_token VARCHAR,
    promoted_token VARCHAR,
    strongest_head INTEGER CHECK (strongest_head >= 0),
    activation DOUBLE,
    gain DOUBLE,
    n_left_out INTEGER CHECK (n_left_out > 0),
    dfa DOUBLE NOT NULL,
    share_of_parent DOUBLE,
    share_of_root DOUBLE,
    identity_error DOUBLE CHECK (identity_error >= 0),
    PRIMARY KEY (study, layer, feature, rank, node),
    CHECK ((node = 0) = (parent IS NULL)),
    CHECK ((node = 0) = (depth = 0)),
    CHECK (parent < node),
    CHECK (at_layer <= layer),
    CHECK (at_position <= position),
    CHECK ((at_feature IS NOT NULL) = (node_kind IN ('feature', 'residual_feature'))),
    CHECK ((n_left_out IS NOT NULL) = (node_kind = 'rest'))
);
COMMENT ON TABLE feature_rdfa IS 'One row per node of a tree: recursive direct feature attribution (K24 App. N) of one example of a feature. Attention patterns, LayerNorm scales, MLP outputs and the choice of active features are held fixed; then the pre-activation splits over source positions, a source over the writers of the residual stream there, an earlier attention output over the features, error and biases of that layer''s SAE, and such a feature again over its sources. The parts of every split sum to their parent, node `rest` included. Raw weights. Which features and how far: section rdfa of the study. Where the study has SAEs on the residual stream (residual_sae), a source splits by the features, error and bias of its layer''s, and such a feature over the writers of the stream (K24 Table 6, steps 3 and 4). A layer without an SAE has its attention output in one piece; MLP outputs are not split.';
COMMENT ON COLUMN feature_rdfa.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_rdfa.layer IS 'Layer whose z_cat the SAE of the root feature reads';
COMMENT ON COLUMN feature_rdfa.feature IS 'Root: index of the feature in that SAE';
COMMENT ON COLUMN feature_rdfa.rank IS 'Root: rank of the example in feature_top_examples';
COMMENT ON COLUMN feature_rdfa.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN feature_rdfa.position IS 'Root: destination D, the position at which the feature is active';
COMMENT ON COLUMN feature_rdfa.node IS 'Number of the node in its tree, 0 = root, in depth-first order; of siblings the largest absolute value comes first, then biases, errors and rest';
COMMENT ON COLUMN feature_rdfa.parent IS 'Node that this one is a part of; NULL at the root';
COMMENT ON COLUMN feature_rdfa.depth IS 'Splits between the root and this node, 0 at the root';
COMMENT ON COLUMN feature_rdfa.node_kind IS 'feature: the root, or an active feature of an earlier layer''s SAE. source: what the feature above it reads at one source position (and head, with rdfa.by_head). embedding, position: token and position embedding there. attention, mlp: output of an earlier layer there. Biases: encoder_bias = b_enc - w . b_dec of a feature or residual feature; value_bias = what the LayerNorm''s bias and b_V give a source; sae_bias = b_dec through W_O; output_bias = b_O. sae_error: z - SAE(z) through W_O. residual_feature: an active feature of the SAE on the residual stream before at_layer (section residual_sae of the study); residual_error, residual_bias: what that SAE leaves of the stream, and its b_dec. rest: the sum of the parts that have no row';
COMMENT ON COLUMN feature_rdfa.at_layer IS 'Layer of the node: of the feature, of the attention that reads a source or a residual feature, of the output, bias or error; NULL for embedding, position and rest';
COMMENT ON COLUMN feature_rdfa.at_head IS 'Source nodes with rdfa.by_head: the head that reads; else NULL';
COMMENT ON COLUMN feature_rdfa.at_feature IS 'Feature and residual_feature nodes: index of the feature in the SAE of at_layer, on z or on the residual stream';
COMMENT ON COLUMN feature_rdfa.at_position IS 'Position in the sequence: of the feature, of the source, of the writer; NULL for encoder_bias and rest';
COMMENT ON COLUMN feature_rdfa.token_id IS 'Token at at_position';
COMMENT ON COLUMN feature_rdfa.token IS 'Text of that token';
COMMENT ON COLUMN feature_rdfa.strongest_token IS 'Feature nodes: token of the feature''s strongest example (feature_top_examples); NULL where it has none and for residual features';
COMMENT ON COLUMN feature_rdfa.promoted_token IS 'Feature nodes: token with the feature''s largest logit effect (feature_logit_effects); NULL where the decoder row is zero and for residual features';
COMMENT ON COLUMN feature_rdfa.strongest_head IS 'Source nodes: head of at_layer with the largest absolute part of dfa';
COMMENT ON COLUMN feature_rdfa.activation IS 'Feature and residual_feature nodes: activation there, equal to the pre-activation of an active feature, from the z of the forward pass of the raw model, in units of z; of residual features from the residual stream, in its units';
COMMENT ON COLUMN feature_rdfa.gain IS 'Feature and residual_feature nodes: derivative of the root along this path, dfa = gain * activation; 1 at the root';
COMMENT ON COLUMN feature_rdfa.n_left_out IS 'Rest nodes: number of parts they sum up';
COMMENT ON COLUMN feature_rdfa.dfa IS 'Contribution to the root''s pre-activation along this path, signed, in units of z; at the root the pre-activation';
COMMENT ON COLUMN feature_rdfa.share_of_parent IS 'dfa / dfa of the parent: may be negative or above 1; NULL at the root and where the parent is 0';
COMMENT ON COLUMN feature_rdfa.share_of_root IS 'dfa / dfa of the root: may be negative or above 1';
COMMENT ON COLUMN feature_rdfa.identity_error IS 'abs(sum of dfa over the node''s parts - dfa): rounding of the forward pass only; NULL for a node that is not split (what has no finer parts, features past rdfa.max_depth, and the smallest nodes of a tree that reached rdfa.max_nodes)';
