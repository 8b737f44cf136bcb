-- The study's prompts that have tables, with what the model expects behind each.
SELECT
    prompt_set,
    prompt_number,
    count(*) AS n_tokens,
    arg_max(next_token, position) AS next_token,
    arg_max(next_probability, position) AS next_probability,
    sum(log_probability) / nullif(count(log_probability), 0) AS mean_log_probability
FROM prompt_tokens
WHERE study = $study
GROUP BY prompt_set, prompt_number
ORDER BY prompt_set, prompt_number;
