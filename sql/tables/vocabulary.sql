-- formula: 1
-- rows: one per token
-- below: token_id < d_vocab
CREATE TABLE vocabulary (
    study VARCHAR,
    token_id INTEGER CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    is_special BOOLEAN NOT NULL,
    count_train BIGINT NOT NULL CHECK (count_train >= 0),
    count_held_out BIGINT NOT NULL CHECK (count_held_out >= 0),
    PRIMARY KEY (study, token_id)
);
COMMENT ON TABLE vocabulary IS 'One row per token id with its text and how often the corpus has it';
COMMENT ON COLUMN vocabulary.study IS 'Study the row belongs to';
COMMENT ON COLUMN vocabulary.token_id IS 'Id of the token';
COMMENT ON COLUMN vocabulary.token IS 'Text of the token, decoded alone; bytes that are not UTF-8 alone show as U+FFFD';
COMMENT ON COLUMN vocabulary.is_special IS 'Whether the tokenizer calls it special (BOS, EOS, ...)';
COMMENT ON COLUMN vocabulary.count_train IS 'Occurrences in training sequences, position 0 not counted';
COMMENT ON COLUMN vocabulary.count_held_out IS 'Occurrences in held-out sequences, position 0 not counted';
