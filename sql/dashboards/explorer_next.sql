-- The likeliest token behind the position, and how likely the token there was.
SELECT position, token, exp(log_probability) AS probability, next_token_id, next_token, next_probability
FROM prompt_tokens
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND position = $position;
