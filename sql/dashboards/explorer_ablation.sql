-- The next token with z of the head zero at all positions.
SELECT h.ablation_kl, t.next_token, t.next_probability, h.ablated_probability
FROM prompt_head_effects AS h
JOIN prompt_tokens AS t USING (study, prompt_set, prompt_number)
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND layer = $layer AND head = $head AND t.position = $position;
