-- formula: 2
CREATE TABLE corpus_documents (
    study VARCHAR,
    document BIGINT,
    doc_id VARCHAR,
    title VARCHAR,
    author VARCHAR,
    document_source VARCHAR,
    license VARCHAR,
    split VARCHAR,
    n_characters BIGINT,
    n_text_tokens BIGINT,
    text_hash VARCHAR
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
