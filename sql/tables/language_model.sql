-- formula: 3
-- rows: one
CREATE TABLE language_model (
    study VARCHAR,
    weights_source VARCHAR NOT NULL,
    model_type VARCHAR NOT NULL,
    n_layers INTEGER NOT NULL CHECK (n_layers > 0),
    n_heads INTEGER NOT NULL CHECK (n_heads > 0),
    n_kv_heads INTEGER NOT NULL CHECK (n_kv_heads > 0),
    d_model INTEGER NOT NULL CHECK (d_model > 0),
    d_head INTEGER NOT NULL CHECK (d_head > 0),
    d_mlp INTEGER NOT NULL CHECK (d_mlp > 0),
    d_vocab INTEGER NOT NULL CHECK (d_vocab > 0),
    n_ctx INTEGER NOT NULL CHECK (n_ctx > 0),
    position_encoding VARCHAR NOT NULL CHECK (position_encoding IN ('absolute', 'rotary', 'other')),
    normalization VARCHAR NOT NULL CHECK (normalization IN ('LN', 'RMS')),
    n_parameters BIGINT NOT NULL CHECK (n_parameters > 0),
    dtype VARCHAR NOT NULL,
    bos_token_id INTEGER NOT NULL,
    bos_token VARCHAR NOT NULL,
    prepend_bos BOOLEAN NOT NULL,
    left_out_token_ids INTEGER[] NOT NULL,
    weights_hash VARCHAR NOT NULL CHECK (regexp_full_match(weights_hash, '[0-9a-f]{16}')),
    tokenizer_hash VARCHAR NOT NULL CHECK (regexp_full_match(tokenizer_hash, '[0-9a-f]{16}')),
    bridge_error DOUBLE NOT NULL CHECK (bridge_error >= 0),
    bridge_error_allowed DOUBLE NOT NULL CHECK (bridge_error_allowed > 0),
    PRIMARY KEY (study),
    CHECK (n_heads % n_kv_heads = 0),
    CHECK (bos_token_id BETWEEN 0 AND d_vocab - 1),
    CHECK (left_out_token_ids[1] = bos_token_id)
);
COMMENT ON TABLE language_model IS 'One row per study: the language model that everything in the study is computed from';
COMMENT ON COLUMN language_model.study IS 'Study the row belongs to';
COMMENT ON COLUMN language_model.weights_source IS 'Where the weights came from: embedded, a folder or a hub name';
COMMENT ON COLUMN language_model.model_type IS 'Model type of the Hugging Face config';
COMMENT ON COLUMN language_model.n_layers IS 'Transformer blocks';
COMMENT ON COLUMN language_model.n_heads IS 'Attention heads per layer (query heads)';
COMMENT ON COLUMN language_model.n_kv_heads IS 'Key/value heads per layer; fewer than n_heads under grouped-query attention';
COMMENT ON COLUMN language_model.d_model IS 'Width of the residual stream';
COMMENT ON COLUMN language_model.d_head IS 'Width of one head''s query, key and value';
COMMENT ON COLUMN language_model.d_mlp IS 'Width of the MLP''s hidden layer';
COMMENT ON COLUMN language_model.d_vocab IS 'Size of the vocabulary';
COMMENT ON COLUMN language_model.n_ctx IS 'Longest context the model takes';
COMMENT ON COLUMN language_model.position_encoding IS 'How positions enter: absolute, rotary or other';
COMMENT ON COLUMN language_model.normalization IS 'LN (LayerNorm) or RMS (root mean square)';
COMMENT ON COLUMN language_model.n_parameters IS 'Parameters, tied ones counted once';
COMMENT ON COLUMN language_model.dtype IS 'Floating-point type the model is run in';
COMMENT ON COLUMN language_model.bos_token_id IS 'Token id of BOS (model.bos): stands between joined documents and, with prepend_bos, at position 0 of every sequence and prompt; excluded from SAE training and feature statistics wherever it stands';
COMMENT ON COLUMN language_model.bos_token IS 'Label of that token';
COMMENT ON COLUMN language_model.prepend_bos IS 'Whether sequences and prompts start with bos_token_id. Where they do not, position 0 holds text, and still takes no part in SAE training and feature statistics: it attends to itself alone';
COMMENT ON COLUMN language_model.left_out_token_ids IS 'Token ids excluded from SAE training, statistics and evaluation wherever they stand: bos_token_id, and those of activations.exclude_tokens';
COMMENT ON COLUMN language_model.weights_hash IS 'Fingerprint of all weights as loaded (sha256, 16 hex digits); artefacts made with other weights are refused';
COMMENT ON COLUMN language_model.tokenizer_hash IS 'Fingerprint of vocabulary, merges and special tokens (sha256, 16 hex digits); artefacts made with another tokenizer are refused';
COMMENT ON COLUMN language_model.bridge_error IS 'Relative rms difference between the model itself and TransformerLens''s bridge over its raw weights, the worse of logits and z of all layers, on a few real tokens';
COMMENT ON COLUMN language_model.bridge_error_allowed IS 'Largest bridge_error with which the bridge is the model, by the precision that the model is run in';
