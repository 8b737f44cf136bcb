-- Features of the layer at a place of the prompt and at one of the other.
WITH here AS (
    SELECT feature, activation
    FROM prompt_features
    WHERE
        study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
        AND layer = $layer AND position = $position
),
there AS (
    SELECT feature, activation
    FROM prompt_features
    WHERE
        study = $study AND prompt_set = $other_set AND prompt_number = $other_number
        AND layer = $layer AND position = $other_position
)
SELECT
    feature,
    coalesce(here.activation, 0) AS activation,
    coalesce(there.activation, 0) AS other,
    coalesce(here.activation, 0) - coalesce(there.activation, 0) AS difference
FROM here
FULL JOIN there USING (feature)
ORDER BY abs(difference) DESC, feature;
