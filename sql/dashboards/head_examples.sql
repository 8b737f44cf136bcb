SELECT
    selection,
    rank,
    attention_quantile,
    sequence,
    destination,
    destination_token,
    source,
    source_token,
    attention,
    attention_row
FROM head_attention_examples
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY selection DESC, rank;
