-- Of an SAE from elsewhere one reading is adopted, the one that attention_sae names, and z with its
-- heads in another order fits worse; an SAE trained in the study has no reading
SELECT *
FROM (
    SELECT
        external_folder, trained_on,
        count(*) FILTER (adopted) AS n_adopted,
        any_value(reading) FILTER (adopted) AS adopted_reading,
        any_value(fvu) FILTER (adopted) AS fvu,
        any_value(fvu) FILTER (reading = 'permuted_heads') AS permuted_fvu
    FROM attention_sae
    LEFT JOIN sae_adoption USING (study, layer)
    WHERE study = getvariable('study') AND layer = getvariable('layer')
    GROUP BY ALL
)
WHERE (
    CASE
        WHEN external_folder IS NULL THEN n_adopted = 0
        ELSE n_adopted = 1 AND adopted_reading = trained_on AND coalesce(fvu <= permuted_fvu, true)
    END
) IS NOT TRUE;
