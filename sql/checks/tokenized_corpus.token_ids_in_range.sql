-- No sequence has a token id outside the vocabulary; each starts with BOS if sequences of the study do
SELECT sequence, token_ids[1] AS first_token, list_max(token_ids) AS largest, d_vocab
FROM tokenized_corpus
JOIN language_model USING (study)
WHERE study = getvariable('study')
    AND (
        list_min(token_ids) >= 0 AND largest < d_vocab
        AND (first_token = bos_token_id OR NOT prepend_bos)
    ) IS NOT TRUE;
