-- formula: 1
-- rows: at least one
CREATE TABLE tokenized_corpus (
    study VARCHAR,
    sequence BIGINT CHECK (sequence >= 0),
    split VARCHAR NOT NULL CHECK (split IN ('train', 'held_out')),
    documents BIGINT[] NOT NULL,
    n_tokens INTEGER NOT NULL CHECK (n_tokens > 0),
    token_ids INTEGER[] NOT NULL,
    PRIMARY KEY (study, sequence),
    CHECK (n_tokens = len(token_ids)),
    CHECK (len(documents) >= 1),
    CHECK (list_min(token_ids) >= 0)
);
COMMENT ON TABLE tokenized_corpus IS 'One row per token sequence: documents of one split joined with BOS between them, or one by one (corpus.packing), cut to the context size';
COMMENT ON COLUMN tokenized_corpus.study IS 'Study the row belongs to';
COMMENT ON COLUMN tokenized_corpus.sequence IS 'Number of the sequence within the study; feature tables point here';
COMMENT ON COLUMN tokenized_corpus.split IS 'train or held_out; no sequence mixes them';
COMMENT ON COLUMN tokenized_corpus.documents IS 'Documents (corpus_documents.document) that the sequence has tokens of';
COMMENT ON COLUMN tokenized_corpus.n_tokens IS 'Tokens in the sequence, BOS at position 0 included where sequences begin with it';
COMMENT ON COLUMN tokenized_corpus.token_ids IS 'Token ids in order; SQL lists count from 1, positions from 0';
