-- What each head adds to the logit of the likeliest next token, less the mean logit.
SELECT layer, head, direct_logit_effect
FROM prompt_head_effects
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
ORDER BY abs(direct_logit_effect) DESC, layer, head;
