-- formula: 1
-- references: attention_consensus (study, task, layer, head, destination_role, source_role)
-- below: layer < n_layers, head < n_heads, token_id < d_vocab
CREATE TABLE attention_token_norms (
    study VARCHAR,
    task VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    token_id INTEGER CHECK (token_id >= 0),
    n_dimensions INTEGER NOT NULL CHECK (n_dimensions > 0),
    at_source BOOLEAN NOT NULL,
    n BIGINT NOT NULL CHECK (n > 0),
    mean_projection DOUBLE NOT NULL CHECK (mean_projection >= 0),
    sd_projection DOUBLE NOT NULL CHECK (sd_projection >= 0),
    PRIMARY KEY (study, task, layer, head, destination_role, source_role, token_id)
);
COMMENT ON TABLE attention_token_norms IS 'How much of each token lies in what the key of a traced node reads (Franco & Crovella 2024, arXiv 2410.00340, Figure 9): the length of the projection of its normalised input, a 1 appended, on the span of the node''s consensus right singular vectors v_k; for rotary models at offset 0. One row per node and token of the base prompts.';
COMMENT ON COLUMN attention_token_norms.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_token_norms.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_token_norms.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_token_norms.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_token_norms.destination_role IS 'Role of the pair''s destination, as in attention_slices';
COMMENT ON COLUMN attention_token_norms.source_role IS 'Role of the pair''s source, as in attention_slices';
COMMENT ON COLUMN attention_token_norms.token_id IS 'Id of the token';
COMMENT ON COLUMN attention_token_norms.n_dimensions IS 'Dimension of the consensus subspace';
COMMENT ON COLUMN attention_token_norms.at_source IS 'Whether the token stands at the node''s source role in any prompt: for IO, S1 and S2 the names';
COMMENT ON COLUMN attention_token_norms.n IS 'Number of positions with the token, over all base prompts';
COMMENT ON COLUMN attention_token_norms.mean_projection IS 'Mean length |V_C^T x| of the projection, x the normalised input of the head''s layer with a 1 appended, V_C the consensus right singular vectors';
COMMENT ON COLUMN attention_token_norms.sd_projection IS 'Standard deviation of that length over positions';
