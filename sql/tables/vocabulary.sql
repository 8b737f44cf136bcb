-- formula: 1
CREATE TABLE vocabulary (
    study VARCHAR,
    token_id INTEGER,
    token VARCHAR,
    is_special BOOLEAN,
    count_train BIGINT,
    count_held_out BIGINT
);
COMMENT ON TABLE vocabulary IS 'One row per token id with its text and how often the corpus has it';
COMMENT ON COLUMN vocabulary.study IS 'Study the row belongs to';
COMMENT ON COLUMN vocabulary.token_id IS 'Id of the token';
COMMENT ON COLUMN vocabulary.token IS 'Text of the token, decoded alone; bytes that are not UTF-8 alone show as U+FFFD';
COMMENT ON COLUMN vocabulary.is_special IS 'Whether the tokenizer calls it special (BOS, EOS, ...)';
COMMENT ON COLUMN vocabulary.count_train IS 'Occurrences in training sequences, position 0 not counted';
COMMENT ON COLUMN vocabulary.count_held_out IS 'Occurrences in held-out sequences, position 0 not counted';
