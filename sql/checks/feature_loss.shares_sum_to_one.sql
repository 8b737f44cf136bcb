-- Shares of the increase of a feature's loss sum to 1, and each feature has all three classes
SELECT feature, sum(increase_share) AS total, count(*) AS classes
FROM feature_loss
WHERE study = getvariable('study') AND layer = getvariable('layer')
GROUP BY feature
HAVING (
    count(*) = 3
    AND (sum(loss_increase) = 0 OR abs(sum(increase_share) - 1) <= 1e-9)
) IS NOT TRUE;
