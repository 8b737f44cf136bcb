-- Settings in which two studies differ, as they are asked for now.
SELECT
    substr(input, 10) AS setting,
    a.value AS this,
    b.value AS other
FROM (SELECT input, value FROM study_inputs WHERE study = $study) AS a
FULL JOIN (SELECT input, value FROM study_inputs WHERE study = $other) AS b USING (input)
WHERE starts_with(input, 'settings:') AND a.value IS DISTINCT FROM b.value
ORDER BY setting;
