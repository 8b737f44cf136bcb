-- formula: 4
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_consensus (
    study VARCHAR,
    task VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    destination_role VARCHAR,
    source_role VARCHAR,
    slice INTEGER CHECK (slice >= 0),
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'relative')),
    singular_value DOUBLE NOT NULL CHECK (singular_value >= 0),
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    selected_share DOUBLE NOT NULL CHECK (selected_share > 0 AND selected_share <= 1),
    sign_consistency DOUBLE NOT NULL CHECK (sign_consistency BETWEEN 0 AND 1),
    in_consensus BOOLEAN NOT NULL,
    PRIMARY KEY (study, task, layer, head, destination_role, source_role, slice),
    CHECK (in_consensus = (selected_share >= 0.5))
);
COMMENT ON TABLE attention_consensus IS 'The slices that the traced pairs of a head and pair of roles agree on (Franco & Crovella 2024, arXiv 2410.00340, Figure 9; the majority rule is this project''s). One row per node and singular vector that any pair selects; the most frequent nodes of the main rule''s trace. For rotary models the SVD of offset 0 serves all offsets.';
COMMENT ON COLUMN attention_consensus.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_consensus.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN attention_consensus.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_consensus.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_consensus.destination_role IS 'Role of the pair''s destination, as in attention_slices';
COMMENT ON COLUMN attention_consensus.source_role IS 'Role of the pair''s source, as in attention_slices';
COMMENT ON COLUMN attention_consensus.slice IS 'Index of the singular vector, as in attention_svd';
COMMENT ON COLUMN attention_consensus.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 (Franco & Crovella 2024): a pair fires with attention >= ioi.firing_threshold, score >= 0 and source >= 1, and its score is traced; relative: it fires by attention alone, and the score minus the mean score of the destination''s other sources is traced, writers told apart by the token that they wrote at (relative attention of ACC, by the same authors)';
COMMENT ON COLUMN attention_consensus.singular_value IS 'Singular value sigma_k; for rotary models that of offset 0';
COMMENT ON COLUMN attention_consensus.n_pairs IS 'Traced pairs of the node';
COMMENT ON COLUMN attention_consensus.selected_share IS 'Share of these pairs whose S contains k';
COMMENT ON COLUMN attention_consensus.sign_consistency IS '|mean of sign(u_k . x_i)| over the pairs that select k: 1 when all agree';
COMMENT ON COLUMN attention_consensus.in_consensus IS 'Whether selected_share is at least 0.5: the consensus subspace is spanned by these';
