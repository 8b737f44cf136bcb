-- Which traced edges do several tasks use, in which share of their prompts, and between which roles?
WITH shares AS (
    SELECT
        g.task,
        'L' || g.upstream_layer || 'H' || g.upstream_head AS upstream,
        'L' || g.downstream_layer || 'H' || g.downstream_head AS downstream,
        g.side,
        max_by(g.destination_role || ' -> ' || g.source_role, g.n_prompts) AS pair,
        max(g.n_prompts) / any_value(s.of) AS share
    FROM trace_graph AS g
    JOIN (SELECT DISTINCT study, task, n_prompts AS of FROM trace_summary) AS s USING (study, task)
    WHERE g.study = coalesce(getvariable('study'), 'organism')
    GROUP BY g.task, upstream, downstream, g.side
)
SELECT
    upstream,
    downstream,
    side,
    count(*) AS tasks,
    round(min(share), 2) AS least_share,
    string_agg(task || ' ' || round(share, 2) || ' (' || pair || ')', ', ' ORDER BY share DESC) AS where_used
FROM shares
GROUP BY upstream, downstream, side
HAVING count(*) > 1
ORDER BY tasks DESC, least_share DESC
LIMIT 20;
