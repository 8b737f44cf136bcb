-- formula: 1
-- references: attention_slices (study, task, prompt, layer, head, destination, source)
-- below: layer < n_layers, head < n_heads, upstream_layer < n_layers, upstream_head < n_heads
CREATE TABLE attention_slice_writers (
    study VARCHAR,
    task VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    prompt BIGINT NOT NULL,
    destination INTEGER NOT NULL,
    source INTEGER NOT NULL CHECK (source >= 0),
    side VARCHAR CHECK (side IN ('destination', 'source')),
    upstream_layer INTEGER CHECK (upstream_layer >= 0),
    upstream_head INTEGER CHECK (upstream_head >= 0),
    contribution DOUBLE NOT NULL,
    contribution_all_slices DOUBLE NOT NULL,
    PRIMARY KEY (study, task, layer, head, destination_role, source_role, side, upstream_layer, upstream_head),
    CHECK (source <= destination),
    CHECK (upstream_layer < layer)
);
COMMENT ON TABLE attention_slice_writers IS 'What every upstream head contributes to a pair, through the selected slices and through all (Franco & Crovella 2024, arXiv 2410.00340, Figures 4 and 16). One row per node, side and upstream head; of each of the most frequent traced nodes the pair with the median score.';
COMMENT ON COLUMN attention_slice_writers.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_slice_writers.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_slice_writers.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_slice_writers.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_slice_writers.destination_role IS 'Role of the pair''s destination, as in attention_slices';
COMMENT ON COLUMN attention_slice_writers.source_role IS 'Role of the pair''s source, as in attention_slices';
COMMENT ON COLUMN attention_slice_writers.prompt IS 'Prompt number within the task, as in ioi_prompts or task_prompts';
COMMENT ON COLUMN attention_slice_writers.destination IS 'Position that attends';
COMMENT ON COLUMN attention_slice_writers.source IS 'Position attended to';
COMMENT ON COLUMN attention_slice_writers.side IS 'Where the upstream heads wrote: destination or source';
COMMENT ON COLUMN attention_slice_writers.upstream_layer IS 'Layer of the head that writes';
COMMENT ON COLUMN attention_slice_writers.upstream_head IS 'Head that writes';
COMMENT ON COLUMN attention_slice_writers.contribution IS 'sum over k in S of e_k sqrt(sigma_k) u_k . o_i / s_i on the destination side, v_k . o_j / s_j on the source side, e_k = sign(u_k . x_i) (eq. 8), o written at the pair''s own position; under the rule relative S is that rule''s';
COMMENT ON COLUMN attention_slice_writers.contribution_all_slices IS 'The same sum over all slices';
