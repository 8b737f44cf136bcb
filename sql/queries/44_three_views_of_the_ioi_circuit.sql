-- Which heads make the IOI circuit by direct effect, by mean ablation and by the trace, and where do these disagree?
WITH traced AS (
    -- Prompts in which a head is traced: a pair of its own was worked on, or it was kept as a writer.
    SELECT study, layer, head, count(DISTINCT prompt) AS n_prompts
    FROM (
        SELECT study, layer, head, prompt FROM attention_slices
        WHERE task = 'ioi' AND path_multiplicity > 0
        UNION ALL
        SELECT study, upstream_layer, upstream_head, prompt FROM trace_edges
        WHERE task = 'ioi' AND kept
    )
    GROUP BY ALL
), heads AS (
    SELECT
        s.study,
        s.layer,
        s.head,
        d.value AS direct_effect,
        s.mean_effect AS ablation_effect,
        coalesce(t.n_prompts, 0) AS traced_prompts
    FROM intervention_summary AS s
    LEFT JOIN ioi_head_scores AS d
        ON d.study = s.study AND d.layer = s.layer AND d.head = s.head
        AND d.score = 'ioi_direct_effect'
    LEFT JOIN traced AS t ON t.study = s.study AND t.layer = s.layer AND t.head = s.head
    WHERE s.study = coalesce(getvariable('study'), 'organism')
        AND s.task = 'ioi'
        AND s.kind = 'head_ablation'
        AND s.mode = 'mean_counterfactual'
        AND s.position_role = 'all'
        AND s.metric = 'logit_diff'
), ranked AS (
    SELECT
        *,
        rank() OVER (ORDER BY direct_effect DESC NULLS LAST) AS direct_rank,
        rank() OVER (ORDER BY ablation_effect) AS ablation_rank,
        rank() OVER (ORDER BY traced_prompts DESC) AS trace_rank
    FROM heads
)
SELECT
    'L' || layer || 'H' || head AS head,
    round(direct_effect, 2) AS direct_effect,
    direct_rank,
    round(ablation_effect, 2) AS ablation_effect,
    ablation_rank,
    traced_prompts,
    trace_rank
FROM ranked
WHERE least(direct_rank, ablation_rank, trace_rank) <= 8
ORDER BY
    greatest(direct_rank, ablation_rank, trace_rank) - least(direct_rank, ablation_rank, trace_rank) DESC,
    ablation_rank;
