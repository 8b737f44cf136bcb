CREATE VIEW prefix_induction_heads AS
WITH by_head AS (
    SELECT
        study,
        layer,
        head,
        min(n) AS n,
        max(mean_attention) FILTER (WHERE prefix_length = 1) AS score_1,
        max(attention_ci_low) FILTER (WHERE prefix_length = 1) AS score_1_ci_low,
        max(attention_ci_high) FILTER (WHERE prefix_length = 1) AS score_1_ci_high,
        max(mean_attention) FILTER (WHERE prefix_length = 2) AS score_2,
        arg_max(mean_attention, prefix_length) AS score_longest,
        min(mean_attention) FILTER (WHERE prefix_length >= 2) AS least_longer,
        avg(mean_attention) FILTER (WHERE prefix_length >= 2) AS mean_longer,
        avg(attention_gain) FILTER (WHERE prefix_length >= 2) AS gain_longer,
        max(dla_excess) FILTER (WHERE prefix_length = 1) AS dla_excess_1,
        avg(dla_excess) FILTER (WHERE prefix_length >= 2) AS dla_excess_longer,
        bool_and(mean_attention > null_mean + 3 * null_sd) FILTER (WHERE prefix_length >= 2)
            AS above_null
    FROM prefix_induction
    GROUP BY study, layer, head
)
SELECT
    study,
    layer,
    head,
    CASE
        WHEN score_1 >= 0.7 THEN 'short'
        WHEN score_1 < 0.3 AND least_longer > 0.7 AND above_null THEN 'long'
        ELSE 'other'
    END AS prefix_class,
    score_1,
    score_1_ci_low,
    score_1_ci_high,
    score_2,
    score_longest,
    least_longer,
    mean_longer,
    gain_longer,
    dla_excess_1,
    dla_excess_longer,
    n
FROM by_head;
COMMENT ON VIEW prefix_induction_heads IS 'One row per attention head: its class by prefix length, with the thresholds of Kissane et al. 2024 (section 4.2), over the table prefix_induction.';
COMMENT ON COLUMN prefix_induction_heads.study IS 'Study the row belongs to';
COMMENT ON COLUMN prefix_induction_heads.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prefix_induction_heads.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prefix_induction_heads.prefix_class IS 'short: score_1 >= 0.7, one matching token is enough. long: score_1 < 0.3 and the score of every longer prefix > 0.7, and more than 3 standard deviations above its null. other: everything else, heads without induction and heads in between alike';
COMMENT ON COLUMN prefix_induction_heads.score_1 IS 'Induction score (prefix_induction.mean_attention) at prefix length 1';
COMMENT ON COLUMN prefix_induction_heads.score_1_ci_low IS 'Lower end of its 95% interval: a class whose threshold lies within is not certain';
COMMENT ON COLUMN prefix_induction_heads.score_1_ci_high IS 'Upper end of the same';
COMMENT ON COLUMN prefix_induction_heads.score_2 IS 'The same at prefix length 2';
COMMENT ON COLUMN prefix_induction_heads.score_longest IS 'The same at the longest prefix length';
COMMENT ON COLUMN prefix_induction_heads.least_longer IS 'Smallest score of the prefix lengths from 2 on; by it heads are long';
COMMENT ON COLUMN prefix_induction_heads.mean_longer IS 'Mean score of the prefix lengths from 2 on';
COMMENT ON COLUMN prefix_induction_heads.gain_longer IS 'Mean gain (prefix_induction.attention_gain) of the prefix lengths from 2 on: what a second and further matching token adds to one';
COMMENT ON COLUMN prefix_induction_heads.dla_excess_1 IS 'prefix_induction.dla_excess at prefix length 1, logits';
COMMENT ON COLUMN prefix_induction_heads.dla_excess_longer IS 'Its mean over the prefix lengths from 2 on';
COMMENT ON COLUMN prefix_induction_heads.n IS 'Sequences behind each score';
