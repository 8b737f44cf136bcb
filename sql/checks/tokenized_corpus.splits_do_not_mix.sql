-- Sequences are numbered from 0, and hold documents of their own split, which exist
SELECT sequence, number, split, document, document_split
FROM (
    SELECT sequence, split, number, unnest(documents) AS document
    FROM (
        SELECT *, row_number() OVER (ORDER BY sequence) - 1 AS number
        FROM tokenized_corpus
        WHERE study = getvariable('study')
    )
)
LEFT JOIN (
    SELECT document, split AS document_split FROM corpus_documents WHERE study = getvariable('study')
) USING (document)
WHERE (split = document_split AND sequence = number) IS NOT TRUE;
