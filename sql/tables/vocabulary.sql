-- formula: 2
-- rows: one per token
-- below: token_id < d_vocab
CREATE TABLE vocabulary (
    study VARCHAR,
    token_id INTEGER CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    bytes_hex VARCHAR CHECK (regexp_full_match(bytes_hex, '([0-9a-f]{2})*')),
    is_special BOOLEAN NOT NULL,
    count_train BIGINT NOT NULL CHECK (count_train >= 0),
    count_held_out BIGINT NOT NULL CHECK (count_held_out >= 0),
    PRIMARY KEY (study, token_id),
    UNIQUE (study, token)
);
COMMENT ON TABLE vocabulary IS 'One row per token id with the text it stands for and how often the corpus has it. The text of a sequence is decode(unhex(string_agg(bytes_hex, ''''))) of its tokens in order';
COMMENT ON COLUMN vocabulary.study IS 'Study the row belongs to';
COMMENT ON COLUMN vocabulary.token_id IS 'Id of the token';
COMMENT ON COLUMN vocabulary.token IS 'Label of the token, another one for each: its text with the spaces it stands for; bytes that are no character alone show as \xe2. Ids that the tokenizer has no piece for are named <id>';
COMMENT ON COLUMN vocabulary.bytes_hex IS 'The bytes of text that it stands for, hexadecimal: joined over the tokens of a text they are its UTF-8, after the tokenizer''s normalisation and behind the space that some put before a text; NULL for ids that the tokenizer has no piece for';
COMMENT ON COLUMN vocabulary.is_special IS 'Whether it stands for no text: BOS, EOS and what the tokenizer marks as special';
COMMENT ON COLUMN vocabulary.count_train IS 'Occurrences in training sequences, position 0 not counted';
COMMENT ON COLUMN vocabulary.count_held_out IS 'Occurrences in held-out sequences, position 0 not counted';
