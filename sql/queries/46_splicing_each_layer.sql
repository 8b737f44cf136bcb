-- What is left of the task with SAE reconstructions in one layer, beside mean ablation of it (K24, Fig. 14)?
SELECT
    e.part AS layers,
    max(s.n) AS n,
    round(max(s.mean_clean) FILTER (WHERE s.metric = 'logit_diff'), 2) AS clean_logit_diff,
    round(max(s.mean_patched) FILTER (WHERE s.metric = 'logit_diff'), 2) AS spliced_logit_diff,
    round(max(s.mean_ablated) FILTER (WHERE s.metric = 'logit_diff'), 2) AS ablated_logit_diff,
    -- A share of what ablation takes away: none where ablation takes nothing away.
    round(max(s.recovered_from_ablated) FILTER (
        WHERE s.metric = 'logit_diff' AND s.mean_ablated < s.mean_clean
    ), 3) AS kept_logit_diff,
    round(max(s.mean_patched) FILTER (WHERE s.metric = 'kl'), 4) AS spliced_kl,
    round(max(s.mean_ablated) FILTER (WHERE s.metric = 'kl'), 4) AS ablated_kl,
    round(max(s.recovered_from_ablated) FILTER (WHERE s.metric = 'kl'), 3) AS kept_by_kl,
    any_value(e.chosen_by) AS chosen_by
FROM intervention_experiments AS e
INNER JOIN intervention_summary AS s USING (study, task, intervention)
WHERE e.study = coalesce(getvariable('study'), 'organism')
    AND e.experiment = 'k24_splicing'
GROUP BY e.part
ORDER BY e.part;
