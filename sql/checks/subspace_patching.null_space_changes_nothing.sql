-- Patching along the part that the next weights do not read changes nothing, and fldd is 1 -
-- m_patched / m_clean
SELECT site, layer, position_role, direction, feature, patched_part, m_clean, m_patched, fldd
FROM subspace_patching
WHERE study = getvariable('study') AND (
    (patched_part <> 'null' OR abs(m_patched - m_clean) <= 1e-3 * (1 + abs(m_clean)))
    AND (fldd IS NULL OR abs((1 - fldd) * m_clean - m_patched) <= 1e-6 * (1 + abs(m_clean)))
) IS NOT TRUE;
