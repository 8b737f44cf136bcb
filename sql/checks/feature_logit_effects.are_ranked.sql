-- Ranks are 0 .. n - 1, the most extreme effect first, and token ids are in the vocabulary
SELECT * FROM (
    SELECT
        feature, extreme, rank, token_id, logit_effect, d_vocab,
        row_number() OVER ranked - 1 AS number,
        lag(logit_effect) OVER ranked AS before
    FROM feature_logit_effects
    JOIN language_model USING (study)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    WINDOW ranked AS (PARTITION BY feature, extreme ORDER BY rank)
)
WHERE (
    rank = number
    AND token_id < d_vocab
    AND CASE WHEN extreme = 'top' THEN logit_effect <= coalesce(before, logit_effect)
        ELSE logit_effect >= coalesce(before, logit_effect) END
) IS NOT TRUE;
