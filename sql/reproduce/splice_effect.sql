-- Share of the logit difference that is kept when SAE reconstructions replace z, against mean ablation
SELECT regexp_replace(intervention, ':all:vs-mean$', '') AS key, recovered_reference AS value
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND metric = 'logit_diff'
    AND contains(intervention, 'splice:sae:')
    AND ends_with(intervention, ':vs-mean')
ORDER BY key;
