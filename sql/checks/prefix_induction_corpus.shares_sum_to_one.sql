-- A head's attended_share and attention_share sum to 1 over prefix lengths; n and n_next are the
-- same for every head
SELECT * FROM (
    SELECT
        layer, head,
        sum(attended_share) AS attended,
        sum(attention_share) AS attention,
        list(n ORDER BY prefix_length) AS pairs,
        first(pairs) OVER () AS pairs_of_another
    FROM prefix_induction_corpus
    WHERE study = getvariable('study')
    GROUP BY ALL
)
WHERE (
    coalesce(abs(attended - 1) <= 1e-6, attended IS NULL)
    AND coalesce(abs(attention - 1) <= 1e-4, attention IS NULL)
    AND pairs = pairs_of_another
) IS NOT TRUE;
