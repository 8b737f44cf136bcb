-- Conditions of a study's run that its tables say: model, BOS, architectures of the SAEs
-- NULL: not known. Those that settings say are in reproduction/conditions.py.
SELECT
    any_value(model_type || ' ' || n_layers || 'x' || n_heads || 'x' || d_model) AS model,
    any_value(CASE WHEN prepend_bos THEN bos_token ELSE 'none' END) AS bos,
    (
        SELECT string_agg(architecture, ', ' ORDER BY architecture)
        FROM (
            SELECT DISTINCT architecture FROM attention_sae
            WHERE study = coalesce(getvariable('study'), 'organism')
        ) AS architectures
    ) AS sae
FROM language_model
WHERE study = coalesce(getvariable('study'), 'organism');
