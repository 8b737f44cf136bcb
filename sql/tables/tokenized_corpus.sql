-- formula: 1
CREATE TABLE tokenized_corpus (
    study VARCHAR,
    sequence BIGINT,
    split VARCHAR,
    documents BIGINT[],
    n_tokens INTEGER,
    token_ids INTEGER[]
);
COMMENT ON TABLE tokenized_corpus IS 'One row per token sequence: documents of one split joined with BOS between them and cut to the context size';
COMMENT ON COLUMN tokenized_corpus.study IS 'Study the row belongs to';
COMMENT ON COLUMN tokenized_corpus.sequence IS 'Number of the sequence within the study; feature tables point here';
COMMENT ON COLUMN tokenized_corpus.split IS 'train or held_out; no sequence mixes them';
COMMENT ON COLUMN tokenized_corpus.documents IS 'Documents (corpus_documents.document) that the sequence has tokens of';
COMMENT ON COLUMN tokenized_corpus.n_tokens IS 'Tokens in the sequence, BOS at position 0 included';
COMMENT ON COLUMN tokenized_corpus.token_ids IS 'Token ids in order; SQL lists count from 1, positions from 0';
