-- formula: 2
-- below: layer < n_layers, head < n_heads
CREATE TABLE trace_roots (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    source_role VARCHAR,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    chosen_by VARCHAR,
    skipped VARCHAR,
    UNIQUE (study, task, layer, head, source_role),
    CHECK ((layer IS NULL) = (head IS NULL)),
    CHECK ((layer IS NULL) = (skipped IS NOT NULL)),
    CHECK ((chosen_by IS NULL) = (skipped IS NOT NULL))
);
COMMENT ON TABLE trace_roots IS 'Where traces start: one row per traced task and root head, or one without a head that says why the task has no trace (the other tables of traces then have no rows of it).';
COMMENT ON COLUMN trace_roots.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_roots.task IS 'Task of tasks.traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_roots.layer IS 'Layer of the root head; NULL: nothing is traced';
COMMENT ON COLUMN trace_roots.head IS 'The root head; NULL: nothing is traced';
COMMENT ON COLUMN trace_roots.source_role IS 'Role that it attends to from END; its pair is traced where it fires';
COMMENT ON COLUMN trace_roots.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN trace_roots.chosen_by IS 'Why this head: named in the study, part of a published circuit, or found by its direct effect on the logit difference';
COMMENT ON COLUMN trace_roots.skipped IS 'Why the task was left out: no prompts, no head that qualifies as a root, NULL where there is a root. A model of which tracing does not hold (model_capabilities) has no rows';
