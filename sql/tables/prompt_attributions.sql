-- formula: 2
-- references: study, prompt_set, prompt_number, tree, parent -> prompt_attributions (study, prompt_set, prompt_number, tree, node)
-- below: at_layer < n_layers, at_head < n_heads, token_id < d_vocab, strongest_head < n_heads
CREATE TABLE prompt_attributions (
    study VARCHAR,
    prompt_set VARCHAR,
    prompt_number INTEGER CHECK (prompt_number >= 0),
    tree INTEGER CHECK (tree >= 0),
    node INTEGER CHECK (node >= 0),
    parent INTEGER CHECK (parent >= 0),
    depth INTEGER NOT NULL CHECK (depth >= 0),
    node_kind VARCHAR NOT NULL CHECK (node_kind IN ('logit', 'feature', 'source', 'head', 'embedding', 'position', 'attention', 'mlp', 'encoder_bias', 'value_bias', 'sae_bias', 'output_bias', 'unembedding_bias', 'sae_error', 'residual_feature', 'residual_error', 'residual_bias', 'rest')),
    at_layer INTEGER CHECK (at_layer >= 0),
    at_head INTEGER CHECK (at_head >= 0),
    at_feature INTEGER CHECK (at_feature >= 0),
    at_position INTEGER CHECK (at_position >= 0),
    token_id INTEGER CHECK (token_id >= 0),
    token VARCHAR,
    strongest_head INTEGER CHECK (strongest_head >= 0),
    activation DOUBLE,
    gain DOUBLE,
    n_left_out INTEGER CHECK (n_left_out > 0),
    path_contribution DOUBLE NOT NULL,
    identity_error DOUBLE CHECK (identity_error >= 0),
    PRIMARY KEY (study, prompt_set, prompt_number, tree, node),
    CHECK ((node = 0) = (parent IS NULL)),
    CHECK ((node = 0) = (depth = 0)),
    CHECK (parent < node),
    CHECK ((at_feature IS NOT NULL) = (node_kind IN ('feature', 'residual_feature'))),
    CHECK ((n_left_out IS NOT NULL) = (node_kind = 'rest'))
);
COMMENT ON TABLE prompt_attributions IS 'One row per node of a tree of a prompt of the study''s own: recursive attribution, as in feature_rdfa, of the logit of the likeliest next token (tree 0) and of the strongest feature of each SAE at the last position (further trees). The parts of every split sum to their parent, node `rest` included. Where feature_rdfa leaves the attention output of a layer without an SAE in one piece, here it is split by head and a head by source. Raw weights.';
COMMENT ON COLUMN prompt_attributions.study IS 'Study the row belongs to';
COMMENT ON COLUMN prompt_attributions.prompt_set IS 'Name of the set that the prompt is in (section prompts of the study, or a file that it names; kept: kept in the explorer)';
COMMENT ON COLUMN prompt_attributions.prompt_number IS 'Number of the prompt in its set, from 0';
COMMENT ON COLUMN prompt_attributions.tree IS 'Number of the tree in its prompt: 0 of the logit, then one per layer with an SAE';
COMMENT ON COLUMN prompt_attributions.node IS 'Number of the node in its tree, 0 = root, in depth-first order; of siblings the largest absolute value comes first, then biases, errors and rest';
COMMENT ON COLUMN prompt_attributions.parent IS 'Node that this one is a part of; NULL at the root';
COMMENT ON COLUMN prompt_attributions.depth IS 'Splits between the root and this node, 0 at the root';
COMMENT ON COLUMN prompt_attributions.node_kind IS 'feature: a root, or an active feature of an earlier layer''s SAE. Others as in feature_rdfa, residual_feature among them, and logit: a root; head: a head of a layer without an SAE, read at at_position; unembedding_bias: what the final norm''s bias and b_U give';
COMMENT ON COLUMN prompt_attributions.at_layer IS 'Layer of the node: of the feature or head, of the attention that reads a source or a residual feature, of the output, bias or error; NULL for logit, embedding, position, unembedding_bias and rest';
COMMENT ON COLUMN prompt_attributions.at_head IS 'Source nodes with rdfa.by_head: the head that reads; here of head nodes and the sources below them; else NULL';
COMMENT ON COLUMN prompt_attributions.at_feature IS 'Feature and residual_feature nodes: index of the feature in the SAE of at_layer, on z or on the residual stream';
COMMENT ON COLUMN prompt_attributions.at_position IS 'Position in the sequence: of the logit, feature, source or writer; NULL for encoder_bias, unembedding_bias and rest';
COMMENT ON COLUMN prompt_attributions.token_id IS 'Id of the token at at_position; of a logit: the token that it is of';
COMMENT ON COLUMN prompt_attributions.token IS 'Text of that token';
COMMENT ON COLUMN prompt_attributions.strongest_head IS 'Source nodes: head of at_layer with the largest absolute part of path_contribution';
COMMENT ON COLUMN prompt_attributions.activation IS 'Feature and residual_feature nodes: activation there, equal to the pre-activation of an active feature, in units of z or of the residual stream';
COMMENT ON COLUMN prompt_attributions.gain IS 'Feature and residual_feature nodes: derivative of the root along this path, path_contribution = gain * activation; 1 at the root';
COMMENT ON COLUMN prompt_attributions.n_left_out IS 'Rest nodes: number of parts they sum up';
COMMENT ON COLUMN prompt_attributions.path_contribution IS 'Contribution to the root along this path, signed: in units of z for features, in logits (less the mean logit) for logits; at the root its value';
COMMENT ON COLUMN prompt_attributions.identity_error IS 'abs(sum of path_contribution over the node''s parts - path_contribution): rounding of the forward pass only; NULL for a node that is not split';
