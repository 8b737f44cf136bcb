CREATE VIEW feature_label_agreement AS
WITH pairs AS (
    SELECT study, layer, feature, a.rater AS rater_a, b.rater AS rater_b,
        a.verdict AS verdict_a, b.verdict AS verdict_b
    FROM feature_labels AS a
    JOIN feature_labels AS b USING (study, layer, feature)
    WHERE a.rater < b.rater
),
marginals AS (
    SELECT study, rater_a, rater_b, verdict,
        avg((verdict_a = verdict)::INT) AS share_a, avg((verdict_b = verdict)::INT) AS share_b
    FROM pairs
    CROSS JOIN (VALUES ('yes'), ('no'), ('unsure')) AS v (verdict)
    GROUP BY ALL
),
chance AS (
    SELECT study, rater_a, rater_b, sum(share_a * share_b) AS expected
    FROM marginals
    GROUP BY ALL
)
SELECT
    study,
    rater_a,
    rater_b,
    count(*) AS n_labelled_by_both,
    count(*) FILTER (WHERE verdict_a = verdict_b) AS n_agree,
    n_agree / n_labelled_by_both AS observed,
    any_value(expected) AS expected,
    CASE WHEN any_value(expected) < 1
        THEN (n_agree / n_labelled_by_both - any_value(expected)) / (1 - any_value(expected))
    END AS kappa
FROM pairs
JOIN chance USING (study, rater_a, rater_b)
GROUP BY study, rater_a, rater_b;
COMMENT ON VIEW feature_label_agreement IS 'One row per pair of raters with features in common: how far their verdicts (yes, no, unsure) agree, over all layers.';
COMMENT ON COLUMN feature_label_agreement.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_label_agreement.rater_a IS 'First rater, by name';
COMMENT ON COLUMN feature_label_agreement.rater_b IS 'Second rater';
COMMENT ON COLUMN feature_label_agreement.n_labelled_by_both IS 'Features that both labelled';
COMMENT ON COLUMN feature_label_agreement.n_agree IS 'Of these, features with the same verdict';
COMMENT ON COLUMN feature_label_agreement.observed IS 'n_agree / n_labelled_by_both';
COMMENT ON COLUMN feature_label_agreement.expected IS 'Agreement expected of raters who give verdicts at random, each with his own shares';
COMMENT ON COLUMN feature_label_agreement.kappa IS 'Cohen''s kappa, (observed - expected) / (1 - expected): 1 = always agree, 0 = as by chance; NULL where both give one and the same verdict throughout';
