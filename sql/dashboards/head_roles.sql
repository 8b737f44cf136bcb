SELECT head, role, value, threshold, null_z
FROM head_roles
WHERE study = $study AND layer = $layer
ORDER BY head, role;
