-- Heads of each role in two studies, the highest score first.
SELECT
    role,
    count(*) FILTER (study = $study) AS n,
    count(*) FILTER (study = $other) AS other_n,
    list('L' || layer || 'H' || head ORDER BY value DESC) FILTER (study = $study) AS heads,
    list('L' || layer || 'H' || head ORDER BY value DESC) FILTER (study = $other) AS other_heads
FROM head_roles
WHERE study IN ($study, $other)
GROUP BY role
ORDER BY role;
