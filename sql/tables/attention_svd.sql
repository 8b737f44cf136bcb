-- formula: 2
-- below: layer < n_layers, head < n_heads
CREATE TABLE attention_svd (
    study VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    slice INTEGER NOT NULL CHECK (slice >= 0),
    rope_offset INTEGER,
    singular_value DOUBLE NOT NULL CHECK (singular_value >= 0),
    energy_share DOUBLE NOT NULL CHECK (energy_share BETWEEN 0 AND 1.000001),
    cumulative_energy DOUBLE NOT NULL CHECK (cumulative_energy BETWEEN 0 AND 1.000001),
    UNIQUE (study, layer, head, rope_offset, slice)
);
COMMENT ON TABLE attention_svd IS 'Singular values of Omega = [W_Q; b_Q][W_K; b_K]^T per attention head (Franco & Crovella 2024, arXiv 2410.00340, section 3), processed weights, float64. One row per layer, head, singular vector and, for rotary models, offset.';
COMMENT ON COLUMN attention_svd.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_svd.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN attention_svd.head IS 'Head within the layer, from 0';
COMMENT ON COLUMN attention_svd.slice IS 'Index of the singular vector, from 0, singular values descending; at most d_head of them';
COMMENT ON COLUMN attention_svd.rope_offset IS 'Destination minus source position at which a rotary model''s Omega is taken; NULL for models with absolute positions, whose Omega has no offset';
COMMENT ON COLUMN attention_svd.singular_value IS 'Singular value sigma_k of Omega, at least 0; sigma_k (u_k . x_i)(v_k . x_j) sums to q . k before division by sqrt(d_head)';
COMMENT ON COLUMN attention_svd.energy_share IS 'sigma_k^2 / sum over k of sigma_k^2, 0 to 1';
COMMENT ON COLUMN attention_svd.cumulative_energy IS 'Sum of energy_share over singular vectors up to k, 0 to 1';
