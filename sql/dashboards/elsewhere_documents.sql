-- Documents in which the feature fires most often.
SELECT
    d.document,
    c.title,
    count(*) AS n_tokens,
    max(a.activation) AS max_activation
FROM feature_activations AS a
JOIN document_spans AS d
    ON d.study = a.study AND d.sequence = a.sequence
    AND a.position BETWEEN d.first_position AND d.last_position
JOIN corpus_documents AS c ON c.study = a.study AND c.document = d.document
WHERE a.study = $study AND a.layer = $layer AND a.feature = $feature
GROUP BY d.document, c.title
ORDER BY n_tokens DESC, max_activation DESC, d.document
LIMIT 8;
