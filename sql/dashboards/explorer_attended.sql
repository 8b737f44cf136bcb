-- What heads of the layer attend to most from the position, of the heads kept for the prompt.
SELECT head, source, attention
FROM prompt_pairs
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND layer = $layer AND destination = $position
ORDER BY head;
