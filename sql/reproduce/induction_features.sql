-- Share of the tested features that behave as induction features, all layers together, by group of features
-- Keys: the group, selected or control, and what passes are counted by: per_occurrence, K24's, or per_sequence; "same
-- prefix" where the token before must match too; "tested" how many features.
-- statistic: share of tested features whose pass rate is above 0.6
-- position: occurrences of the token that induction predicts
-- weights: raw
-- rule: attribution to induction heads of at least 0.6 (selected), below 0.1 (control)
-- run: model, bos, corpus, sae
WITH summed AS (
    SELECT
        feature_group || ' '
            || replace(replace(measure, 'induction_', ''), '_same_prefix', ' same prefix') AS name,
        sum(n_tested) AS n_tested,
        sum(n_passed) AS n_passed
    FROM induction_test
    WHERE study = coalesce(getvariable('study'), 'organism')
        AND feature_group IN ('selected', 'control')
    GROUP BY ALL
)
SELECT name AS key, n_passed / nullif(n_tested, 0) AS value
FROM summed
UNION ALL
SELECT name || ' tested', n_tested
FROM summed
ORDER BY key;
