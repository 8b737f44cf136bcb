-- Features of the layer that are active in the prompt.
SELECT position, feature, activation
FROM prompt_features
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND layer = $layer
ORDER BY position, activation DESC, feature;
