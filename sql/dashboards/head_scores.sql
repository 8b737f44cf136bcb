SELECT score, value, null_mean, null_sd, threshold, passes, n, dataset
FROM head_score_tests
WHERE study = $study AND layer = $layer AND head = $head
ORDER BY passes DESC, score;
