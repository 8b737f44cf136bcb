-- The log ends with the training's last step and token, and tokens grow from row to row
SELECT * FROM (
    SELECT
        step, l.training_tokens, s.steps, s.training_tokens AS all_tokens,
        lead(step) OVER (ORDER BY step) IS NULL AS is_last,
        lag(l.training_tokens) OVER (ORDER BY step) AS before
    FROM sae_training_log AS l
    LEFT JOIN attention_sae AS s USING (study, layer)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE (
    training_tokens > coalesce(before, 0)
    AND (NOT is_last OR (step = steps AND training_tokens = all_tokens))
) IS NOT TRUE;
