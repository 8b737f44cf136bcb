-- formula: 3
-- below: layer < n_layers
CREATE TABLE head_label_summary (
    study VARCHAR NOT NULL,
    layer INTEGER CHECK (layer >= 0),
    rater VARCHAR,
    class VARCHAR NOT NULL CHECK (class IN ('monosemantic', 'minor exception', 'bisemantic', 'polysemantic', 'no majority')),
    n_classified BIGINT NOT NULL CHECK (n_classified > 0),
    n_class BIGINT NOT NULL CHECK (n_class >= 0),
    class_share DOUBLE NOT NULL CHECK (class_share BETWEEN 0 AND 1),
    ci_low DOUBLE NOT NULL CHECK (ci_low BETWEEN 0 AND 1),
    ci_high DOUBLE NOT NULL CHECK (ci_high BETWEEN 0 AND 1),
    UNIQUE (study, layer, rater, class),
    CHECK (n_class <= n_classified),
    CHECK (ci_low <= class_share AND class_share <= ci_high),
    CHECK (class <> 'no majority' OR rater IS NULL)
);
COMMENT ON TABLE head_label_summary IS 'Share of the labelled heads in each class of polysemanticity (Kissane et al. 2024, Table 3: monosemantic 9.7%, minor exception 5.5%, bisemantic 2.7%, polysemantic 81.9% of GPT-2 small''s heads). One row per class for each layer and rater, each layer, each rater, and the study. A share of all heads only where the labelled ones are all of them or a random sample.';
COMMENT ON COLUMN head_label_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_label_summary.layer IS 'Layer of the heads; NULL: all layers together';
COMMENT ON COLUMN head_label_summary.rater IS 'Who gave the classes; NULL: all raters together, each head counted once';
COMMENT ON COLUMN head_label_summary.class IS 'monosemantic, minor exception, bisemantic or polysemantic; with rater NULL the class that more than half of a head''s raters gave it, or no majority';
COMMENT ON COLUMN head_label_summary.n_classified IS 'Heads with a class';
COMMENT ON COLUMN head_label_summary.n_class IS 'Of these, heads in this class';
COMMENT ON COLUMN head_label_summary.class_share IS 'n_class / n_classified, 0 to 1; sums to 1 over the classes';
COMMENT ON COLUMN head_label_summary.ci_low IS 'Lower bound of its 95% Clopper-Pearson interval';
COMMENT ON COLUMN head_label_summary.ci_high IS 'Upper bound of its 95% Clopper-Pearson interval';
