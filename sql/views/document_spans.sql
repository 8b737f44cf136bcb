CREATE VIEW document_spans AS
WITH cut AS (
    SELECT
        c.study,
        c.sequence,
        c.documents,
        c.n_tokens,
        list_concat(
            [0],
            list_filter(
                range(1, c.n_tokens),
                lambda i : c.token_ids[i] = m.bos_token_id AND (i > 1 OR NOT m.prepend_bos)
            )
        ) AS firsts
    FROM tokenized_corpus AS c
    JOIN language_model AS m USING (study)
),
numbered AS (
    SELECT *, unnest(range(1, len(documents) + 1)) AS place
    FROM cut
)
SELECT
    study,
    sequence,
    documents[place] AS document,
    firsts[place]::INTEGER AS first_position,
    (coalesce(firsts[place + 1], n_tokens) - 1)::INTEGER AS last_position
FROM numbered
WHERE firsts[place] IS NOT NULL;
COMMENT ON VIEW document_spans IS 'One row per sequence and document that it has tokens of: the positions that are the document''s. Join with position BETWEEN first_position AND last_position.';
COMMENT ON COLUMN document_spans.study IS 'Study the row belongs to';
COMMENT ON COLUMN document_spans.sequence IS 'Sequence of tokenized_corpus';
COMMENT ON COLUMN document_spans.document IS 'Document of corpus_documents';
COMMENT ON COLUMN document_spans.first_position IS 'First position of the document in the sequence, from 0; a BOS that the sequence begins with counts to it';
COMMENT ON COLUMN document_spans.last_position IS 'Last position, that of the BOS that ends the document where that lies in the sequence';
