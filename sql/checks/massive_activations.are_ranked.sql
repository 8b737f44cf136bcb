-- An entry of a higher rank is no larger, and lies within the residual stream
SELECT * FROM (
    SELECT
        layer, tokens, with_bos, rank, magnitude, dimension, d_model,
        lag(magnitude) OVER (PARTITION BY layer, tokens, with_bos ORDER BY rank) AS larger
    FROM massive_activations
    JOIN language_model USING (study)
    WHERE study = getvariable('study')
)
WHERE (magnitude <= coalesce(larger, magnitude) AND dimension < d_model) IS NOT TRUE;
