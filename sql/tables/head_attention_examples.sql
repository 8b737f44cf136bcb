-- formula: 2
-- references: tokenized_corpus (study, sequence)
-- below: layer < n_layers, head < n_heads
CREATE TABLE head_attention_examples (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    rank INTEGER CHECK (rank >= 0),
    sequence BIGINT NOT NULL CHECK (sequence >= 0),
    destination INTEGER NOT NULL CHECK (destination >= 8),
    source INTEGER NOT NULL CHECK (source >= 1),
    attention FLOAT NOT NULL CHECK (attention BETWEEN 0 AND 1.000001),
    destination_token VARCHAR NOT NULL,
    source_token VARCHAR NOT NULL,
    attention_row FLOAT[] NOT NULL,
    PRIMARY KEY (study, layer, head, rank),
    UNIQUE (study, layer, head, sequence),
    CHECK (source < destination),
    CHECK (len(attention_row) = destination + 1),
    CHECK (attention = attention_row[source + 1])
);
COMMENT ON TABLE head_attention_examples IS 'One row per head and rank: the held-out sequences in which the head attends most strongly, each by its strongest pair of positions. Attention patterns of the raw weights. Pairs: destination at least 8, source before the destination, neither of them BOS or position 0; so what a head rests on when nothing else draws it (BOS, itself) is in attention_row but chooses no example. The largest values, not the usual ones: head_scores has means.';
COMMENT ON COLUMN head_attention_examples.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_attention_examples.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_attention_examples.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_attention_examples.rank IS 'Rank by attention, 0 = strongest; of equals the smaller sequence first';
COMMENT ON COLUMN head_attention_examples.sequence IS 'Sequence of tokenized_corpus (split held_out); each at most once per head';
COMMENT ON COLUMN head_attention_examples.destination IS 'Position that attends, from 0';
COMMENT ON COLUMN head_attention_examples.source IS 'Position attended to';
COMMENT ON COLUMN head_attention_examples.attention IS 'Attention probability A[destination, source], 0 to 1';
COMMENT ON COLUMN head_attention_examples.destination_token IS 'Text of the token at the destination';
COMMENT ON COLUMN head_attention_examples.source_token IS 'Text of the token at the source';
COMMENT ON COLUMN head_attention_examples.attention_row IS 'A[destination, j] for j = 0 .. destination; sums to 1';
