SELECT role, value, threshold, null_z
FROM head_roles
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY role;
