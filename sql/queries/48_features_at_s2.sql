-- Which SAE features and error terms at S2 does the logit difference depend on, by order of names and template, and through which values (K24, Fig. 16)?
WITH by_template AS (
    SELECT
        e.part,
        p.name_order,
        p.template,
        min(r.layer) AS layer,
        count(DISTINCT r.prompt) AS n,
        avg(r.patched - r.clean) FILTER (WHERE r.kind IN ('sae_feature_ablation', 'sae_splice')) AS ablated,
        avg(r.patched - r.clean) FILTER (WHERE r.kind LIKE 'sae%path' AND NOT r.via_mlp) AS path,
        avg(r.patched - r.clean) FILTER (WHERE r.kind LIKE 'sae%path' AND r.via_mlp) AS path_mlp,
        max(r.receivers) AS receivers
    FROM intervention_experiments AS e
    INNER JOIN intervention_results AS r USING (study, task, intervention)
    INNER JOIN ioi_prompts AS p ON r.study = p.study AND r.prompt = p.prompt
    WHERE e.study = coalesce(getvariable('study'), 'organism')
        AND e.experiment = 'k24_features_at_s2'
        AND r.metric = 'logit_diff'
    GROUP BY e.part, p.name_order, p.template
)
SELECT
    part AS feature,
    name_order,
    sum(n)::BIGINT AS n,
    round(sum(ablated * n) / sum(n), 3) AS ablation,
    round(min(ablated), 3) AS ablation_in_lowest_template,
    round(max(ablated), 3) AS ablation_in_highest_template,
    round(sum(path * n) / sum(n), 3) AS path_into_values,
    round(sum(path_mlp * n) / sum(n), 3) AS path_into_values_through_mlps,
    max(receivers) AS heads
FROM by_template
GROUP BY part, name_order
ORDER BY max(max(abs(ablated))) OVER (PARTITION BY part) DESC, part, name_order;
