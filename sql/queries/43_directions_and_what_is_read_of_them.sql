-- Does patching along a direction do more than patching along the part of it that the weights read?
SELECT
    task,
    site,
    layer,
    position_role,
    direction,
    feature,
    round(any_value(share_row), 3) AS share_row,
    round(max(fldd) FILTER (patched_part = 'direction'), 4) AS along_direction,
    round(max(fldd) FILTER (patched_part = 'row'), 4) AS along_row,
    round(max(fldd) FILTER (patched_part = 'null'), 4) AS along_null,
    round(max(fldd) FILTER (patched_part = 'component'), 4) AS whole_component
FROM subspace_patching
WHERE study = coalesce(getvariable('study'), 'organism')
GROUP BY ALL
ORDER BY abs(max(fldd) FILTER (patched_part = 'direction')) DESC
LIMIT 30;
