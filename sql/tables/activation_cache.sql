-- formula: 1
-- per: site
-- rows: at least one
-- references: study, first_sequence -> tokenized_corpus (study, sequence)
-- below: layer < n_layers
CREATE TABLE activation_cache (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    shard INTEGER CHECK (shard >= 0),
    path VARCHAR NOT NULL,
    first_sequence BIGINT NOT NULL CHECK (first_sequence >= 0),
    n_sequences BIGINT NOT NULL CHECK (n_sequences > 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens >= 0),
    dtype VARCHAR NOT NULL CHECK (dtype IN ('bfloat16', 'float16', 'float32')),
    bytes BIGINT NOT NULL CHECK (bytes > 0),
    sha256 VARCHAR NOT NULL CHECK (regexp_full_match(sha256, '[0-9a-f]{64}')),
    PRIMARY KEY (study, layer, shard)
);
COMMENT ON TABLE activation_cache IS 'One row per stored file of activations. Each is a safetensors file with z [sequence, position, n_heads * d_head] (hook_z of one layer, heads concatenated in order, raw weights) and its token_ids [sequence, position].';
COMMENT ON COLUMN activation_cache.study IS 'Study the row belongs to';
COMMENT ON COLUMN activation_cache.layer IS 'Layer whose z is stored, from 0';
COMMENT ON COLUMN activation_cache.shard IS 'Number of the file within the layer, from 0, in corpus order';
COMMENT ON COLUMN activation_cache.path IS 'File name within the layer''s folder of activations';
COMMENT ON COLUMN activation_cache.first_sequence IS 'tokenized_corpus.sequence of the file''s first sequence; the others follow without gaps';
COMMENT ON COLUMN activation_cache.n_sequences IS 'Sequences in the file';
COMMENT ON COLUMN activation_cache.n_tokens IS 'Valid positions in the file: not position 0 and not the BOS token. z at the other positions is stored too, but nothing is trained on it or counted';
COMMENT ON COLUMN activation_cache.dtype IS 'Stored precision of z: bfloat16, float16 or float32';
COMMENT ON COLUMN activation_cache.bytes IS 'Size of the file';
COMMENT ON COLUMN activation_cache.sha256 IS 'SHA-256 of the file, 64 hex digits';
