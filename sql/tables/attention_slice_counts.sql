-- formula: 3
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_slice_counts (
    study VARCHAR,
    text_source VARCHAR CHECK (text_source IN ('ioi', 'corpus')),
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    n_slices INTEGER CHECK (n_slices >= 0),
    n_pairs BIGINT NOT NULL CHECK (n_pairs > 0),
    PRIMARY KEY (study, text_source, layer, head, n_slices)
);
COMMENT ON TABLE attention_slice_counts IS 'Distribution of the number of slices |S| that a firing pair needs (Franco & Crovella 2024, arXiv 2410.00340, Figure 3), for task prompts and for unspecific text; all heads. One row per text, head and number of slices that occurs.';
COMMENT ON COLUMN attention_slice_counts.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_slice_counts.text_source IS 'What was read: ioi (base prompts) or corpus (held-out documents cut to the prompts'' lengths)';
COMMENT ON COLUMN attention_slice_counts.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_slice_counts.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN attention_slice_counts.n_slices IS 'Number of selected slices |S|, 0 to d_head';
COMMENT ON COLUMN attention_slice_counts.n_pairs IS 'Firing pairs of the head with that many';
