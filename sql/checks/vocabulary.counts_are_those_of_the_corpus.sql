-- Counts sum to the tokens of the sequences, position 0 not counted
SELECT *
FROM (
    SELECT sum(count_train)::BIGINT AS n_train, sum(count_held_out)::BIGINT AS n_held_out
    FROM vocabulary
    WHERE study = getvariable('study')
)
CROSS JOIN (
    SELECT
        coalesce(sum(n_tokens - 1) FILTER (split = 'train'), 0) AS in_train,
        coalesce(sum(n_tokens - 1) FILTER (split = 'held_out'), 0) AS in_held_out
    FROM tokenized_corpus
    WHERE study = getvariable('study')
)
WHERE (n_train = in_train AND n_held_out = in_held_out) IS NOT TRUE;
