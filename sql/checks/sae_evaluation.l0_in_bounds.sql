-- Mean active features per held-out token lies within the study's checks.l0
SELECT l0, getvariable('checks.l0') AS bounds
FROM sae_evaluation
WHERE study = getvariable('study') AND layer = getvariable('layer') AND (l0 BETWEEN bounds[1] AND bounds[2]) IS NOT TRUE;
