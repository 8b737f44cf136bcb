-- Features are active at counted tokens of the prompts alone
SELECT f.prompt_set, f.prompt_number, f.position, f.layer, f.feature
FROM prompt_features AS f
LEFT JOIN prompt_tokens AS t USING (study, prompt_set, prompt_number, position)
WHERE f.study = getvariable('study') AND t.in_statistics IS NOT TRUE;
