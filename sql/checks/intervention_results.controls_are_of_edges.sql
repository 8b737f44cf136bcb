-- Controls are edges with as many slices drawn at random: they have a seed, and no other kind has a
-- control
SELECT DISTINCT task, intervention, kind, seed
FROM intervention_results
WHERE study = getvariable('study') AND is_control AND (kind = 'edge' AND seed IS NOT NULL) IS NOT TRUE;
