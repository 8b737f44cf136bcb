-- Every place where the feature fires, the strongest first, with the document that it is in.
SELECT
    a.activation,
    d.document,
    c.title,
    a.sequence,
    a.position
FROM feature_activations AS a
LEFT JOIN document_spans AS d
    ON d.study = a.study AND d.sequence = a.sequence
    AND a.position BETWEEN d.first_position AND d.last_position
LEFT JOIN corpus_documents AS c ON c.study = a.study AND c.document = d.document
WHERE a.study = $study AND a.layer = $layer AND a.feature = $feature
ORDER BY a.activation DESC
LIMIT 100;
