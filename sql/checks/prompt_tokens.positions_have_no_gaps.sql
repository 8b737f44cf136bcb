-- Every prompt has tokens at all positions from 0 on
SELECT prompt_set, prompt_number, count(*) AS tokens, max(position) AS last
FROM prompt_tokens
WHERE study = getvariable('study')
GROUP BY prompt_set, prompt_number
HAVING (count(*) = max(position) + 1 AND min(position) = 0) IS NOT TRUE;
