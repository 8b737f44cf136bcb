-- Sets of edits beside their members: does the set do what its members do one by one?
SELECT
    s.task,
    s.intervention,
    round(max(whole.mean_effect), 3) AS effect_of_the_set,
    count(*) AS members,
    round(sum(alone.mean_effect), 3) AS sum_of_members_run_alone,
    count(alone.mean_effect) AS members_run_alone
FROM intervention_sets AS s
INNER JOIN intervention_summary AS whole
    ON s.study = whole.study AND s.task = whole.task AND s.intervention = whole.intervention
LEFT JOIN intervention_summary AS alone
    ON s.study = alone.study AND s.task = alone.task AND s.member_id = alone.intervention
    AND whole.metric = alone.metric
WHERE s.study = coalesce(getvariable('study'), 'organism')
    AND whole.metric = 'logit_diff'
GROUP BY s.task, s.intervention
ORDER BY abs(max(whole.mean_effect)) DESC
LIMIT 30;
