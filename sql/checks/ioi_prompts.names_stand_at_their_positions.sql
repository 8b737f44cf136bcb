-- The tokens at pos_io and pos_s1 are io_token_id and s_token_id, the last is at pos_end, and all
-- ids are in the vocabulary
SELECT prompt, variant, text
FROM ioi_prompts
JOIN language_model USING (study)
WHERE study = getvariable('study') AND (
    token_ids[pos_io + 1] = io_token_id
    AND token_ids[pos_s1 + 1] = s_token_id
    AND list_max(token_ids) < d_vocab
) IS NOT TRUE;
