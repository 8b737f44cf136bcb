-- Areas under the faithfulness curves of IOI circuits: CPR of signed rankings, CMD of absolute ones
SELECT ranking || ' ' || if(ranked_by = 'signed', 'cpr', 'cmd') AS key, avg(if(ranked_by = 'signed', cpr, cmd)) AS value
FROM circuit_faithfulness_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
GROUP BY ranking, ranked_by
ORDER BY key;
