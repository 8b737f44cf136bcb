-- formula: 4
-- references: attention_slices (study, task, prompt, layer, head, destination, source)
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_slice_contrast (
    study VARCHAR,
    task VARCHAR,
    prompt BIGINT,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination INTEGER,
    source INTEGER CHECK (source >= 0),
    destination_role VARCHAR NOT NULL,
    source_role VARCHAR NOT NULL,
    side VARCHAR CHECK (side IN ('destination', 'source')),
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    n_slices INTEGER NOT NULL CHECK (n_slices >= 0),
    n_kept INTEGER NOT NULL CHECK (n_kept >= 0),
    n_kept_all_slices INTEGER NOT NULL CHECK (n_kept_all_slices >= 0),
    n_kept_both INTEGER NOT NULL CHECK (n_kept_both >= 0),
    effective_heads DOUBLE,
    effective_heads_all_slices DOUBLE,
    correlation DOUBLE CHECK (correlation BETWEEN -1.000001 AND 1.000001),
    PRIMARY KEY (study, task, prompt, layer, head, destination, source, side),
    CHECK (source <= destination),
    CHECK (n_kept_both <= n_kept AND n_kept_both <= n_kept_all_slices),
    CHECK (effective_heads >= 0.999999 AND effective_heads_all_slices >= 0.999999)
);
COMMENT ON TABLE attention_slice_contrast IS 'What the selection of slices changes (Franco & Crovella 2024, arXiv 2410.00340, Figures 4 and 16): contributions of upstream heads through S against those through all slices. One row per prompt, traced pair of the main rule''s trace and side.';
COMMENT ON COLUMN attention_slice_contrast.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_slice_contrast.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_slice_contrast.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN attention_slice_contrast.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_slice_contrast.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_slice_contrast.destination IS 'Position that attends';
COMMENT ON COLUMN attention_slice_contrast.source IS 'Position attended to';
COMMENT ON COLUMN attention_slice_contrast.destination_role IS 'Role of the pair''s destination, as in attention_slices';
COMMENT ON COLUMN attention_slice_contrast.source_role IS 'Role of the pair''s source, as in attention_slices';
COMMENT ON COLUMN attention_slice_contrast.side IS 'Where the upstream heads wrote: destination or source';
COMMENT ON COLUMN attention_slice_contrast.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN attention_slice_contrast.n_slices IS 'Number of selected slices |S|';
COMMENT ON COLUMN attention_slice_contrast.n_kept IS 'Upstream heads kept by the 70% rule from contributions through S; under the rule relative, on the source side, heads with the position that they wrote at';
COMMENT ON COLUMN attention_slice_contrast.n_kept_all_slices IS 'Upstream heads kept by the same rule from contributions through all slices';
COMMENT ON COLUMN attention_slice_contrast.n_kept_both IS 'Heads kept by both';
COMMENT ON COLUMN attention_slice_contrast.effective_heads IS '(sum of |contribution|)^2 / sum of contribution^2 over upstream heads (and positions written at, where n_kept has them), through S: 1 when one head contributes alone, the number of heads when all contribute alike';
COMMENT ON COLUMN attention_slice_contrast.effective_heads_all_slices IS 'The same through all slices';
COMMENT ON COLUMN attention_slice_contrast.correlation IS 'Pearson correlation over upstream heads between both kinds of contributions; NULL with fewer than two heads';
