-- An attention pattern's row sums to 1; ranks are 0 .. n - 1, the strongest first
SELECT * FROM (
    SELECT
        layer, head, rank, attention,
        list_sum(attention_row) AS total,
        row_number() OVER ranked - 1 AS number,
        lag(attention) OVER ranked AS stronger
    FROM head_attention_examples
    WHERE study = getvariable('study')
    WINDOW ranked AS (PARTITION BY layer, head ORDER BY rank)
)
WHERE (
    abs(total - 1) <= 1e-3 + getvariable('model.rounding') AND rank = number AND attention <= coalesce(stronger, attention)
) IS NOT TRUE;
