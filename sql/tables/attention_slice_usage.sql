-- formula: 3
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_slice_usage (
    study VARCHAR,
    text_source VARCHAR CHECK (text_source IN ('ioi', 'corpus')),
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    slice INTEGER CHECK (slice >= 0),
    fires BOOLEAN,
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    selected_share DOUBLE NOT NULL CHECK (selected_share BETWEEN 0 AND 1),
    mean_term DOUBLE NOT NULL,
    mean_term_share DOUBLE NOT NULL CHECK (mean_term_share BETWEEN -1.000001 AND 1.000001),
    PRIMARY KEY (study, text_source, layer, head, slice, fires)
);
COMMENT ON TABLE attention_slice_usage IS 'Which singular vectors carry a head''s attention scores when a pair fires and when it does not (Franco & Crovella 2024, arXiv 2410.00340, Figures 2 and 8). One row per text, head, singular vector and whether the pairs fire. Pairs that do not fire are a random sample of the causal ones with source >= 1.';
COMMENT ON COLUMN attention_slice_usage.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_slice_usage.text_source IS 'What was read: ioi (base prompts) or corpus (held-out documents cut to the prompts'' lengths)';
COMMENT ON COLUMN attention_slice_usage.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_slice_usage.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_slice_usage.slice IS 'Index of the singular vector, from 0, as in attention_svd; for rotary models at offset 0, which serves all offsets';
COMMENT ON COLUMN attention_slice_usage.fires IS 'Whether the pairs fire: attention >= threshold, score >= 0, source >= 1 (rule fc24)';
COMMENT ON COLUMN attention_slice_usage.n_pairs IS 'Number of pairs';
COMMENT ON COLUMN attention_slice_usage.selected_share IS 'Share of the pairs whose S contains k; for a negative score S is mirrored';
COMMENT ON COLUMN attention_slice_usage.mean_term IS 'Mean of c_k = sigma_k (u_k . x_i)(v_k . x_j), in units of q . k';
COMMENT ON COLUMN attention_slice_usage.mean_term_share IS 'Mean of c_k / sum over k of |c_k|, -1 to 1';
