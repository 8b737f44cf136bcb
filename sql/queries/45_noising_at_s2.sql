-- What is kept of the logit difference when attention outputs at S2 come from another prompt (K24, Fig. 5 and Table 4)?
WITH noised AS (
    SELECT DISTINCT
        CASE WHEN s.kind = 'set' THEN split_part(e.part, ': ', 1) ELSE 'L' || s.layer END AS layers,
        ends_with(e.intervention, ':vs-zero_all') AS zero_everywhere,
        s.*
    FROM intervention_experiments AS e
    INNER JOIN intervention_summary AS s USING (study, task, intervention)
    WHERE e.experiment = 'k24_noising'
        AND s.metric = 'logit_diff'
        AND s.source_variant IS NOT NULL
        AND NOT starts_with(e.part, 'choice of layers')
)
SELECT
    layers,
    source_variant AS exchanged_with,
    max(n) AS n,
    round(max(mean_clean), 2) AS clean,
    round(max(mean_patched), 2) AS noised,
    round(max(mean_ablated) FILTER (WHERE NOT zero_everywhere), 2) AS zero_at_s2,
    round(max(recovered_from_ablated) FILTER (WHERE NOT zero_everywhere), 3) AS kept,
    round(max(recovered_from_ablated_ci_low) FILTER (WHERE NOT zero_everywhere), 3) AS kept_ci_low,
    round(max(recovered_from_ablated_ci_high) FILTER (WHERE NOT zero_everywhere), 3) AS kept_ci_high,
    round(max(mean_ablated) FILTER (WHERE zero_everywhere), 2) AS zero_at_all_positions,
    round(max(recovered_from_ablated) FILTER (WHERE zero_everywhere), 3) AS kept_as_in_published_code
FROM noised
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY layers, source_variant
ORDER BY length(layers) DESC, layers, kept;
