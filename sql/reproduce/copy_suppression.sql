-- How much of a head is copy suppression, by head and score
-- Keys: head and ov (share of tokens among the 10 that attending to them lowers most), qk (share of tokens that
-- attend to themselves most) or explained (share of mean ablation's effect that suppression alone explains).
-- statistic: share by key: ov, qk or explained, as McDougall et al. 2023 define it
-- position: vocabulary (ov, qk); every token of a sequence (explained)
-- weights: processed
-- reference: mean_batch
-- prompts: none
-- run: model, bos, corpus
SELECT
    'L' || layer || 'H' || head || ' ' || replace(score, 'copy_suppression_', '') AS key,
    value
FROM head_scores
WHERE study = coalesce(getvariable('study'), 'organism') AND starts_with(score, 'copy_suppression_')
ORDER BY layer, head, score;
