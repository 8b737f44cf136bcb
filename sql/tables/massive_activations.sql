-- formula: 2
-- rows: one per layer for each tokens, with_bos, rank
-- below: layer < n_layers, dimension < d_model
CREATE TABLE massive_activations (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    tokens VARCHAR CHECK (tokens IN ('natural', 'random', 'repeated')),
    with_bos BOOLEAN,
    rank INTEGER CHECK (rank BETWEEN 0 AND 2),
    magnitude DOUBLE NOT NULL CHECK (magnitude >= 0),
    median DOUBLE NOT NULL CHECK (median >= 0),
    magnitude_ratio DOUBLE CHECK (magnitude_ratio >= 0),
    position INTEGER NOT NULL CHECK (position >= 0),
    dimension INTEGER NOT NULL CHECK (dimension >= 0),
    place_share DOUBLE NOT NULL CHECK (place_share > 0 AND place_share <= 1),
    n_sequences BIGINT NOT NULL CHECK (n_sequences > 0),
    n_positions INTEGER NOT NULL CHECK (n_positions > 0),
    dataset VARCHAR NOT NULL,
    PRIMARY KEY (study, layer, tokens, with_bos, rank),
    CHECK (median <= magnitude),
    CHECK (position < n_positions)
);
COMMENT ON TABLE massive_activations IS 'The three largest entries of the residual stream after each layer, beside its median (Sun et al. 2024, arXiv 2402.17762, section 2). Raw weights. One row per layer, kind of tokens, with or without BOS, and rank. The paper calls an entry massive above 100 and 1000 times the median; no verdict is stored.';
COMMENT ON COLUMN massive_activations.study IS 'Study the row belongs to';
COMMENT ON COLUMN massive_activations.layer IS 'Layer after which the residual stream is read, from 0';
COMMENT ON COLUMN massive_activations.tokens IS 'natural, random or repeated, as in attention_sinks.tokens';
COMMENT ON COLUMN massive_activations.with_bos IS 'Whether the sequences start with BOS';
COMMENT ON COLUMN massive_activations.rank IS 'Rank of the entry among |x| of one sequence (all positions and dimensions), 0 the largest';
COMMENT ON COLUMN massive_activations.magnitude IS 'Mean over sequences of the entry''s |x|';
COMMENT ON COLUMN massive_activations.median IS 'Mean over sequences of the median |x| of the sequence';
COMMENT ON COLUMN massive_activations.magnitude_ratio IS 'magnitude / median; NULL where the median is 0';
COMMENT ON COLUMN massive_activations.position IS 'Position of the most frequent place of the entry, from 0';
COMMENT ON COLUMN massive_activations.dimension IS 'Dimension of d_model of that place';
COMMENT ON COLUMN massive_activations.place_share IS 'Share of sequences whose entry of this rank is at that position and dimension, 0 to 1';
COMMENT ON COLUMN massive_activations.n_sequences IS 'Number of sequences';
COMMENT ON COLUMN massive_activations.n_positions IS 'Positions per sequence; one less without BOS';
COMMENT ON COLUMN massive_activations.dataset IS 'Sequences x tokens, and the seed of random ones';
