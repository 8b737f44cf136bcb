-- The score of the pair and the slices that carry it.
SELECT uncapped_score, attention, slices, slice_sum
FROM prompt_pairs
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND layer = $layer AND head = $head AND destination = $position AND source = $source;
