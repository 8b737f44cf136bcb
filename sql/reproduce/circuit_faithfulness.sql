-- Areas under the faithfulness curves of IOI circuits: CPR of signed rankings, CMD of absolute ones
-- statistic: area under (CPR, signed ranking) or from (CMD, absolute ranking) the faithfulness curve
-- position: each prompt's END
-- weights: processed
-- prompts: this project's
-- reference: counterfactual_pair
-- run: model, bos, counterfactual
SELECT
    ranking || CASE ranked_by WHEN 'signed' THEN ' cpr' ELSE ' cmd' END AS key,
    avg(CASE ranked_by WHEN 'signed' THEN cpr ELSE cmd END) AS value
FROM circuit_faithfulness_summary
WHERE study = coalesce(getvariable('study'), 'organism') AND task = 'ioi'
GROUP BY ranking, ranked_by
ORDER BY key;
