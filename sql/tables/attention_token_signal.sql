-- formula: 4
-- references: attention_consensus (study, task, layer, head, destination_role, source_role)
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_token_signal (
    study VARCHAR,
    task VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR CHECK (side IN ('destination', 'source')),
    position_role VARCHAR,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    n_dimensions INTEGER NOT NULL CHECK (n_dimensions > 0),
    n BIGINT NOT NULL CHECK (n > 0),
    mean_signal DOUBLE NOT NULL,
    sd_signal DOUBLE NOT NULL CHECK (sd_signal >= 0),
    PRIMARY KEY (study, task, layer, head, destination_role, source_role, side, position_role)
);
COMMENT ON TABLE attention_token_signal IS 'What tokens carry along the consensus subspace of a traced node (Franco & Crovella 2024, arXiv 2410.00340, Figure 9): sum over its k of e_k sqrt(sigma_k) u_k . x (destination) or v_k . x (source), x the normalised input with a 1 appended, e_k the majority of sign(u_k . x_i). One row per node, side and role of the position, over all base prompts; for rotary models the source side is over the positions up to the destinations of the node''s pairs, each with its own offset. A head attends where the product of both signals is large.';
COMMENT ON COLUMN attention_token_signal.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_token_signal.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_token_signal.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_token_signal.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_token_signal.destination_role IS 'Role of the pair''s destination, as in attention_slices';
COMMENT ON COLUMN attention_token_signal.source_role IS 'Role of the pair''s source, as in attention_slices';
COMMENT ON COLUMN attention_token_signal.side IS 'destination: read by the query; source: read by the key';
COMMENT ON COLUMN attention_token_signal.position_role IS 'Role of the positions that the signal is averaged over';
COMMENT ON COLUMN attention_token_signal.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN attention_token_signal.n_dimensions IS 'Dimension of the consensus subspace';
COMMENT ON COLUMN attention_token_signal.n IS 'Number of positions';
COMMENT ON COLUMN attention_token_signal.mean_signal IS 'Mean signal, in units of sqrt(q . k)';
COMMENT ON COLUMN attention_token_signal.sd_signal IS 'Standard deviation of the signal over positions';
