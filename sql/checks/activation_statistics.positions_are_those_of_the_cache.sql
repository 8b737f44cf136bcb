-- Statistics are over the valid positions (neither position 0 nor a token that is left out) of the
-- cached sequences of the training split, but for outliers
SELECT head, n_tokens, n_outliers, (
    SELECT sum(len(list_filter(token_ids[2:], lambda token: NOT list_contains(left_out_token_ids, token))))
    FROM tokenized_corpus
    JOIN language_model USING (study)
    WHERE study = getvariable('study')
        AND split = 'train'
        AND sequence < (SELECT max(first_sequence + n_sequences) FROM activation_cache WHERE study = getvariable('study') AND layer = getvariable('layer'))
) AS n_valid
FROM activation_statistics
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (n_tokens + n_outliers = n_valid) IS NOT TRUE;
