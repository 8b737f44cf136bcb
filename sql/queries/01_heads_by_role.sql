-- Which heads play which role, strongest first?
SELECT
    role,
    list('L' || layer || 'H' || head ORDER BY value DESC)[:5] AS heads,
    list(round(value, 2) ORDER BY value DESC)[:5] AS scores,
    count(*) AS n_heads
FROM head_roles
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY role
ORDER BY max(value) DESC;
