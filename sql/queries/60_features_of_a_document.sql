-- Which features are strongest in the document of the strongest example?
WITH chosen AS (
    SELECT study, document
    FROM feature_contexts
    WHERE study = coalesce(getvariable('study'), 'organism') AND rank = 0 AND document IS NOT NULL
    ORDER BY activation DESC, document
    LIMIT 1
)
SELECT
    c.document,
    c.title,
    'L' || a.layer || 'F' || a.feature AS feature,
    count(*) AS n_tokens,
    round(max(a.activation), 3) AS max_activation
FROM chosen
JOIN document_spans AS d USING (study, document)
JOIN corpus_documents AS c USING (study, document)
JOIN feature_activations AS a
    ON a.study = d.study AND a.sequence = d.sequence
    AND a.position BETWEEN d.first_position AND d.last_position
GROUP BY c.document, c.title, a.layer, a.feature
ORDER BY max_activation DESC, feature
LIMIT 20;
