-- formula: 2
-- rows: at least one
CREATE TABLE corpus_documents (
    study VARCHAR,
    document BIGINT CHECK (document >= 0),
    doc_id VARCHAR NOT NULL,
    title VARCHAR NOT NULL,
    author VARCHAR NOT NULL,
    document_source VARCHAR NOT NULL,
    license VARCHAR NOT NULL,
    split VARCHAR NOT NULL CHECK (split IN ('train', 'held_out')),
    n_characters BIGINT NOT NULL CHECK (n_characters >= 0),
    n_text_tokens BIGINT NOT NULL CHECK (n_text_tokens >= 0),
    text_hash VARCHAR NOT NULL CHECK (regexp_full_match(text_hash, '[0-9a-f]{16}')),
    PRIMARY KEY (study, document),
    UNIQUE (study, text_hash)
);
COMMENT ON TABLE corpus_documents IS 'One row per document that was tokenized, after removal of exact duplicates';
COMMENT ON COLUMN corpus_documents.study IS 'Study the row belongs to';
COMMENT ON COLUMN corpus_documents.document IS 'Number of the document within the study, in reading order';
COMMENT ON COLUMN corpus_documents.doc_id IS 'Id the source gives the document, or file name and row number';
COMMENT ON COLUMN corpus_documents.title IS 'Title, empty where the source has none';
COMMENT ON COLUMN corpus_documents.author IS 'Author, empty where the source has none';
COMMENT ON COLUMN corpus_documents.document_source IS 'Where the document came from, in the source''s words';
COMMENT ON COLUMN corpus_documents.license IS 'Licence, in the source''s words';
COMMENT ON COLUMN corpus_documents.split IS 'train or held_out; decided by a hash of doc_id (or title, as the study says), so adding documents moves none';
COMMENT ON COLUMN corpus_documents.n_characters IS 'Length of the text in characters';
COMMENT ON COLUMN corpus_documents.n_text_tokens IS 'Length of the text in tokens, without BOS';
COMMENT ON COLUMN corpus_documents.text_hash IS 'sha256 of the text, 16 hex digits; duplicates share it and only the first is kept';
