-- Singular values of a head (and offset) are numbered from 0 and descend; their energies sum to 1,
-- and cumulative_energy is the sum up to each
SELECT * FROM (
    SELECT
        layer, head, rope_offset, slice, singular_value, energy_share, cumulative_energy,
        row_number() OVER so_far - 1 AS number,
        lag(singular_value) OVER so_far AS larger,
        sum(energy_share) OVER so_far AS summed,
        sum(energy_share) OVER (PARTITION BY layer, head, rope_offset) AS total
    FROM attention_svd
    WHERE study = getvariable('study')
    WINDOW so_far AS (PARTITION BY layer, head, rope_offset ORDER BY slice)
)
WHERE (
    slice = number
    AND singular_value <= coalesce(larger, singular_value) * 1.000001
    AND abs(cumulative_energy - summed) <= 1e-6
    AND abs(total - 1) <= 1e-6
) IS NOT TRUE;
