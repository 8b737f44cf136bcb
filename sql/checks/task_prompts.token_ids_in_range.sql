-- Tokens of prompts and answers are in the vocabulary, and no answer is wrong
SELECT task, prompt
FROM task_prompts
JOIN language_model USING (study)
WHERE study = getvariable('study') AND (
    list_max(token_ids) < d_vocab
    AND coalesce(list_max(answer_token_ids) < d_vocab AND list_min(answer_token_ids) >= 0, true)
    AND coalesce(list_max(wrong_token_ids) < d_vocab AND list_min(wrong_token_ids) >= 0, true)
    AND NOT list_has_any(answer_token_ids, wrong_token_ids)
) IS NOT TRUE;
