-- formula: 2
-- rows: one per head for each tokens, with_bos, position
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_sinks (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    tokens VARCHAR CHECK (tokens IN ('natural', 'random', 'repeated')),
    with_bos BOOLEAN,
    position INTEGER CHECK (position BETWEEN 0 AND 3),
    mean_attention DOUBLE NOT NULL CHECK (mean_attention BETWEEN 0 AND 1.000001),
    uniform_attention DOUBLE NOT NULL CHECK (uniform_attention > 0 AND uniform_attention <= 1),
    key_norm DOUBLE NOT NULL CHECK (key_norm >= 0),
    value_norm DOUBLE NOT NULL CHECK (value_norm >= 0),
    query_key_cosine DOUBLE NOT NULL CHECK (query_key_cosine BETWEEN -1.000001 AND 1.000001),
    output_norm DOUBLE NOT NULL CHECK (output_norm >= 0),
    n_sequences BIGINT NOT NULL CHECK (n_sequences > 0),
    n_positions INTEGER NOT NULL CHECK (n_positions > 0),
    dataset VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, head, tokens, with_bos, position),
    CHECK (position < n_positions)
);
COMMENT ON TABLE attention_sinks IS 'What each head does with the first four positions of a sequence: one row per head, kind of tokens, with or without BOS, and position k (Gu et al. 2024, arXiv 2410.10781, section 3; its positions count from 1). Raw weights. A sink takes attention without writing much: high attention, small value_norm and output_norm.';
COMMENT ON COLUMN attention_sinks.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_sinks.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_sinks.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_sinks.tokens IS 'natural: held-out text of the study. random: distinct random tokens. repeated: random tokens, repeated once';
COMMENT ON COLUMN attention_sinks.with_bos IS 'Whether the sequences start with BOS; the others are the same without it, so that position 0 holds an ordinary token';
COMMENT ON COLUMN attention_sinks.position IS 'Source position k, from 0';
COMMENT ON COLUMN attention_sinks.mean_attention IS 'alpha_k: mean over sequences and destinations t >= k of A[t, k], 0 to 1. Compare with uniform_attention, not with 1 / T';
COMMENT ON COLUMN attention_sinks.uniform_attention IS 'alpha_k of a head that attends uniformly: mean over t >= k of 1 / (t + 1)';
COMMENT ON COLUMN attention_sinks.key_norm IS 'Mean norm of the key at k';
COMMENT ON COLUMN attention_sinks.value_norm IS 'Mean norm of the value at k, b_V included';
COMMENT ON COLUMN attention_sinks.query_key_cosine IS 'Mean over sequences and t >= k of the cosine between the query at t and the key at k (rotary models: after rotation)';
COMMENT ON COLUMN attention_sinks.output_norm IS 'Mean over sequences and t >= k of A[t, k] ||v_k W_O||: size of what the head writes because of k, in units of the residual stream';
COMMENT ON COLUMN attention_sinks.n_sequences IS 'Number of sequences';
COMMENT ON COLUMN attention_sinks.n_positions IS 'T, positions per sequence; one less without BOS';
COMMENT ON COLUMN attention_sinks.dataset IS 'Sequences x tokens, and the seed of random ones';
