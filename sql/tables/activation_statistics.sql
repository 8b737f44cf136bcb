-- formula: 2
-- per: site
-- rows: one per head
-- below: layer < n_layers, head < n_heads
CREATE TABLE activation_statistics (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens > 0),
    norm_limit DOUBLE CHECK (norm_limit >= 0),
    n_outliers BIGINT NOT NULL CHECK (n_outliers >= 0),
    mean_z FLOAT[] NOT NULL,
    mean_norm DOUBLE NOT NULL CHECK (mean_norm >= 0),
    rms DOUBLE NOT NULL CHECK (rms >= 0),
    PRIMARY KEY (study, layer, head)
);
COMMENT ON TABLE activation_statistics IS 'One row per attention head: statistics of its z (attention-weighted sum of values, raw weights) over the valid positions (not position 0, not BOS, nothing that activations.exclude_tokens and exclude_norm_above leave out) of the training split. Sums in float64, from z as the model computed it, before the cache rounds it.';
COMMENT ON COLUMN activation_statistics.study IS 'Study the row belongs to';
COMMENT ON COLUMN activation_statistics.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN activation_statistics.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN activation_statistics.n_tokens IS 'Valid positions that the statistics are taken over, equal for all heads of a layer';
COMMENT ON COLUMN activation_statistics.norm_limit IS 'Largest ||z_cat|| that counts in this layer: activations.exclude_norm_above times the median over the first training sequences; NULL without that setting';
COMMENT ON COLUMN activation_statistics.n_outliers IS 'Positions of the training split left out because their ||z_cat|| is larger (activation_outliers has them); equal for all heads of a layer';
COMMENT ON COLUMN activation_statistics.mean_z IS 'Mean z of the head, d_head values. All heads of a layer in order give the mean of z_cat that mean ablation puts in';
COMMENT ON COLUMN activation_statistics.mean_norm IS 'Mean over positions of the L2 norm of the head''s z';
COMMENT ON COLUMN activation_statistics.rms IS 'Root of the mean square of the head''s z over positions and dimensions';
