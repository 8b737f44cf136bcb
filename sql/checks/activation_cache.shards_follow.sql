-- Shards are numbered from 0 without gaps, and each begins with the sequence behind the last of the
-- one before
SELECT * FROM (
    SELECT
        shard,
        first_sequence,
        row_number() OVER (ORDER BY shard) - 1 AS number,
        lag(first_sequence + n_sequences) OVER (ORDER BY shard) AS expected_sequence
    FROM activation_cache
    WHERE study = getvariable('study') AND layer = getvariable('layer')
)
WHERE shard <> number OR first_sequence <> coalesce(expected_sequence, first_sequence);
