-- formula: 1
-- below: io_token_id < d_vocab, s_token_id < d_vocab
CREATE TABLE ioi_prompts (
    study VARCHAR,
    prompt BIGINT CHECK (prompt >= 0),
    pair_id BIGINT NOT NULL CHECK (pair_id >= 0),
    template INTEGER NOT NULL CHECK (template >= 0),
    name_order VARCHAR NOT NULL CHECK (name_order IN ('ABBA', 'BABA')),
    variant VARCHAR NOT NULL CHECK (variant IN ('base', 'ABC', 'swap', 'S2_to_IO', 'random_names', 'filler_before', 'filler_between', 'names_and_fillers', 'and_alongside', 'and_besides', 'and_plus', 'and_with', 'and_comma', 'and_including')),
    io VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    subject2 VARCHAR NOT NULL,
    place VARCHAR,
    object VARCHAR,
    text VARCHAR NOT NULL,
    token_ids INTEGER[] NOT NULL,
    n_tokens INTEGER NOT NULL,
    pos_io INTEGER NOT NULL CHECK (pos_io >= 0),
    pos_s1 INTEGER NOT NULL CHECK (pos_s1 >= 0),
    pos_s1_next INTEGER NOT NULL CHECK (pos_s1_next >= 0),
    pos_and INTEGER NOT NULL CHECK (pos_and >= 0),
    pos_s2 INTEGER NOT NULL CHECK (pos_s2 >= 0),
    pos_verb INTEGER NOT NULL CHECK (pos_verb >= 0),
    pos_end INTEGER NOT NULL CHECK (pos_end >= 0),
    pos_punct INTEGER NOT NULL CHECK (pos_punct >= 0),
    pos_place INTEGER CHECK (pos_place >= 0),
    pos_object INTEGER CHECK (pos_object >= 0),
    io_token_id INTEGER NOT NULL CHECK (io_token_id >= 0),
    s_token_id INTEGER NOT NULL CHECK (s_token_id >= 0),
    PRIMARY KEY (study, prompt),
    CHECK (n_tokens = len(token_ids)),
    CHECK (list_min(token_ids) >= 0),
    CHECK (pos_end = n_tokens - 1),
    CHECK (pos_s1_next = pos_s1 + 1),
    CHECK ((name_order = 'ABBA') = (pos_io < pos_s1)),
    CHECK (greatest(pos_io, pos_s1) < pos_punct AND pos_punct < pos_s2 AND pos_s2 < pos_verb AND pos_verb <= pos_end),
    CHECK (pos_place <= pos_end AND pos_object <= pos_end)
);
COMMENT ON TABLE ioi_prompts IS 'Indirect object identification prompts (Wang et al. 2022, arXiv 2211.00593), one row per prompt: base prompts and variants that share pair_id. Built from typed segments, so positions come from assembly. Positions count tokens from 0 with BOS at 0.';
COMMENT ON COLUMN ioi_prompts.study IS 'Study the row belongs to';
COMMENT ON COLUMN ioi_prompts.prompt IS 'Number of the prompt, unique within the study';
COMMENT ON COLUMN ioi_prompts.pair_id IS 'Number of the base prompt that this prompt is or was varied from';
COMMENT ON COLUMN ioi_prompts.template IS 'Index of the sentence template; templates and name orders are balanced';
COMMENT ON COLUMN ioi_prompts.name_order IS 'ABBA: the indirect object is named first; BABA: the subject is named first. Of this row''s text (variant swap flips it)';
COMMENT ON COLUMN ioi_prompts.variant IS 'base; ABC (three fresh names); swap (IO and S1 exchange places); S2_to_IO (second subject mention becomes the IO name, so S is the answer); random_names (two fresh names); filler_before, filler_between (an extra sentence or phrase); names_and_fillers (two fresh names and both fillers); and_alongside, and_besides, and_plus, and_with, and_comma, and_including (conjunction replaced)';
COMMENT ON COLUMN ioi_prompts.io IS 'Name at the IO position of this text: the indirect object, which is the answer in every variant but S2_to_IO (answer: subject) and ABC (no answer)';
COMMENT ON COLUMN ioi_prompts.subject IS 'Name at the S1 position of this text';
COMMENT ON COLUMN ioi_prompts.subject2 IS 'Name at the S2 position of this text';
COMMENT ON COLUMN ioi_prompts.place IS 'Place named in the text; NULL when the template names none';
COMMENT ON COLUMN ioi_prompts.object IS 'Object named in the text; NULL when the template names none';
COMMENT ON COLUMN ioi_prompts.text IS 'The prompt as text, without BOS';
COMMENT ON COLUMN ioi_prompts.token_ids IS 'Token ids, BOS first; equal to the tokenizer''s ids of text after BOS';
COMMENT ON COLUMN ioi_prompts.n_tokens IS 'Number of tokens, BOS included';
COMMENT ON COLUMN ioi_prompts.pos_io IS 'Position of the first-clause mention of io';
COMMENT ON COLUMN ioi_prompts.pos_s1 IS 'Position of the first-clause mention of subject';
COMMENT ON COLUMN ioi_prompts.pos_s1_next IS 'Position after pos_s1 (role S1+1); in BABA order this is the conjunction';
COMMENT ON COLUMN ioi_prompts.pos_and IS 'Position of the first token of the conjunction between the two names';
COMMENT ON COLUMN ioi_prompts.pos_s2 IS 'Position of the second mention of the subject';
COMMENT ON COLUMN ioi_prompts.pos_verb IS 'Position of the first token of the main verb';
COMMENT ON COLUMN ioi_prompts.pos_end IS 'Position of the last token, where the answer is predicted';
COMMENT ON COLUMN ioi_prompts.pos_punct IS 'Position of the punctuation that ends the first clause';
COMMENT ON COLUMN ioi_prompts.pos_place IS 'Position of the first token of the place, or NULL';
COMMENT ON COLUMN ioi_prompts.pos_object IS 'Position of the first token of the object, or NULL';
COMMENT ON COLUMN ioi_prompts.io_token_id IS 'Token id of io with its leading space';
COMMENT ON COLUMN ioi_prompts.s_token_id IS 'Token id of subject with its leading space';
