-- formula: 3
-- references: tokenized_corpus (study, sequence)
-- below: layer < n_layers, head < n_heads
CREATE TABLE head_attention_examples (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    rank INTEGER CHECK (rank >= 0),
    selection VARCHAR NOT NULL CHECK (selection IN ('strongest', 'spread')),
    attention_quantile DOUBLE NOT NULL CHECK (attention_quantile BETWEEN 0 AND 1),
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
COMMENT ON TABLE head_attention_examples IS 'One row per head and rank: held-out destinations with the source that the head attends to most, half of them where it attends most strongly, half spread over all destinations by quantiles of that attention; each of another sequence. Attention patterns of the raw weights. Pairs: destination at least 8, source before the destination, neither of them BOS or position 0; so what a head rests on when nothing else draws it (BOS, itself) is in attention_row but chooses no example. head_scores has means over all tokens.';
COMMENT ON COLUMN head_attention_examples.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_attention_examples.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_attention_examples.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_attention_examples.rank IS 'Rank by attention, 0 = strongest, over both selections';
COMMENT ON COLUMN head_attention_examples.selection IS 'strongest: of the tenth of all destinations with the largest attention to their strongest source; spread: one of each of as many ranges of equal numbers of destinations, ordered by that attention. Preferred are a source token and a document that no earlier example of the head has, then the strongest, or the nearest to the middle of the range; where all sequences of a range are taken, the nearest to its middle';
COMMENT ON COLUMN head_attention_examples.attention_quantile IS 'Share of the destinations whose strongest source gets less attention, half of this one counted; of equals the smaller sequence and destination counts as stronger';
COMMENT ON COLUMN head_attention_examples.sequence IS 'Sequence of tokenized_corpus (split held_out); each at most once per head';
COMMENT ON COLUMN head_attention_examples.destination IS 'Position that attends, from 0';
COMMENT ON COLUMN head_attention_examples.source IS 'Position attended to';
COMMENT ON COLUMN head_attention_examples.attention IS 'Attention probability A[destination, source], 0 to 1';
COMMENT ON COLUMN head_attention_examples.destination_token IS 'Text of the token at the destination';
COMMENT ON COLUMN head_attention_examples.source_token IS 'Text of the token at the source';
COMMENT ON COLUMN head_attention_examples.attention_row IS 'A[destination, j] for j = 0 .. destination; sums to 1';
