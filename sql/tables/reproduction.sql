-- formula: 4
CREATE TABLE reproduction (
    study VARCHAR,
    reference_id VARCHAR,
    key VARCHAR,
    what VARCHAR NOT NULL,
    reference_kind VARCHAR NOT NULL CHECK (reference_kind IN ('number', 'heads')),
    ours DOUBLE,
    reference_value DOUBLE NOT NULL,
    ci_low DOUBLE,
    ci_high DOUBLE,
    our_heads VARCHAR[],
    reference_heads VARCHAR[],
    precision DOUBLE CHECK (precision BETWEEN 0 AND 1),
    recall DOUBLE CHECK (recall BETWEEN 0 AND 1),
    difference DOUBLE,
    tolerance DOUBLE CHECK (tolerance >= 0),
    divisor_share DOUBLE CHECK (divisor_share >= 0),
    judgement VARCHAR NOT NULL CHECK (
        judgement IN ('within', 'outside', 'other_condition', 'unstable', 'missing', 'no_bound')
    ),
    statistic VARCHAR NOT NULL,
    measured_at VARCHAR NOT NULL,
    condition VARCHAR NOT NULL,
    own_condition VARCHAR NOT NULL,
    other_condition VARCHAR[] NOT NULL,
    reference_source VARCHAR NOT NULL,
    dataset VARCHAR,
    needs VARCHAR,
    reason VARCHAR,
    PRIMARY KEY (study, reference_id, key),
    CHECK (ci_low <= ci_high),
    CHECK ((reference_kind = 'heads') = (reference_heads IS NOT NULL))
);
COMMENT ON TABLE reproduction IS 'What the study measured beside what its reference file reports: published numbers, or those of an earlier run that a rerun must meet. One row per reference and key; no rows for a study without a reference file. The SQL behind `ours` is in sql/reproduce, the references in mechinterp_assets/references or where the study says.';
COMMENT ON COLUMN reproduction.study IS 'Study the row belongs to';
COMMENT ON COLUMN reproduction.reference_id IS 'Identifier of the reference in its file';
COMMENT ON COLUMN reproduction.key IS 'Which of its values: a layer, a role, a head, a variant, ...';
COMMENT ON COLUMN reproduction.what IS 'What is compared';
COMMENT ON COLUMN reproduction.reference_kind IS 'number, or heads: a set of heads';
COMMENT ON COLUMN reproduction.ours IS 'The study''s value, in the unit of its table; for heads their number. NULL: not measured, or not defined';
COMMENT ON COLUMN reproduction.reference_value IS 'The reported value; for heads their number';
COMMENT ON COLUMN reproduction.ci_low IS 'Lower end of the source''s interval (95%), NULL where it gives none';
COMMENT ON COLUMN reproduction.ci_high IS 'Upper end of the same';
COMMENT ON COLUMN reproduction.our_heads IS 'Heads, as L2H3; NULL for numbers, and where roles were not measured';
COMMENT ON COLUMN reproduction.reference_heads IS 'Reported heads, as L2H3; NULL for numbers';
COMMENT ON COLUMN reproduction.precision IS 'Share of our heads that are reported; NULL for numbers, and where we have none';
COMMENT ON COLUMN reproduction.recall IS 'Share of the reported heads that are ours; NULL for numbers, and where none is reported';
COMMENT ON COLUMN reproduction.difference IS 'ours - reference_value; for heads how many are in one of both sets alone';
COMMENT ON COLUMN reproduction.tolerance IS 'Largest absolute difference that a rerun may have; NULL for published numbers, which were computed on other data';
COMMENT ON COLUMN reproduction.divisor_share IS 'Of a ratio: |its divisor| / |the unedited model''s value|. Below 0.1 the ratio is not judged, since small differences decide it. NULL: no ratio of this kind';
COMMENT ON COLUMN reproduction.judgement IS 'within or outside: the tolerance, or without one the source''s interval; other_condition: the run''s conditions are others (other_condition), so that the two are neither equal nor different; unstable: a ratio that divides by too little (divisor_share); missing: nothing was measured; no_bound: neither tolerance nor interval';
COMMENT ON COLUMN reproduction.statistic IS 'What the reported number is';
COMMENT ON COLUMN reproduction.measured_at IS 'Where the reported number was taken';
COMMENT ON COLUMN reproduction.condition IS 'What else the reported number was measured under, as name: value; ...: model, bos, corpus, sae, weights, prompts, reference, rule, ... (docs/reproduce.md)';
COMMENT ON COLUMN reproduction.own_condition IS 'The same of this study''s run, statistic and position among them; without what is not known of it';
COMMENT ON COLUMN reproduction.other_condition IS 'Names of those that differ, or that one of both does not say; statistic and position among them';
COMMENT ON COLUMN reproduction.reference_source IS 'Where the reported value stands';
COMMENT ON COLUMN reproduction.dataset IS 'What it was computed on; NULL: not said';
COMMENT ON COLUMN reproduction.needs IS 'What must be given for an own value; NULL: nothing beyond the study';
COMMENT ON COLUMN reproduction.reason IS 'Why ours may differ, as far as is known';
