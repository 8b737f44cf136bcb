-- Features of other layers of whose activity the largest share is at the token at which most of this one's is.
WITH own AS MATERIALIZED (
    SELECT token_ids, text
    FROM feature_ngrams
    WHERE
        study = $study AND layer = $layer AND feature = $feature
        AND ngram_size = 1 AND rank = 0
)
SELECT
    n.layer AS other_layer,
    n.feature AS other_feature,
    own.text AS token,
    n.active_share,
    n.rate
FROM own
JOIN feature_ngrams AS n ON n.token_ids = own.token_ids
WHERE n.study = $study AND n.layer <> $layer AND n.ngram_size = 1 AND n.rank = 0
ORDER BY n.active_share DESC, n.layer, n.feature
LIMIT 12;
