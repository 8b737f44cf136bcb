-- formula: 2
-- below: layer < n_layers, head < n_heads, query_layer < n_layers, key_layer < n_layers
CREATE TABLE qk_feature_kinds (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    source_role VARCHAR NOT NULL,
    query_kind VARCHAR NOT NULL,
    query_layer INTEGER CHECK (query_layer >= 0),
    key_kind VARCHAR NOT NULL,
    key_layer INTEGER CHECK (key_layer >= 0),
    n_part_pairs BIGINT NOT NULL CHECK (n_part_pairs > 0),
    n BIGINT NOT NULL CHECK (n > 0),
    mean DOUBLE NOT NULL,
    sd DOUBLE NOT NULL CHECK (sd >= 0),
    score_share DOUBLE,
    covariance_share DOUBLE,
    UNIQUE (study, task, layer, head, source_role, query_kind, query_layer, key_kind, key_layer)
);
COMMENT ON TABLE qk_feature_kinds IS 'Shares of attention scores by kinds of parts: the pairs of qk_feature_pairs, all of them, summed over features. One row per head, source role, and kind and layer of both parts; mean, share and covariance_share may be summed further and come to the whole score.';
COMMENT ON COLUMN qk_feature_kinds.study IS 'Study the row belongs to';
COMMENT ON COLUMN qk_feature_kinds.task IS 'Task whose prompts were run';
COMMENT ON COLUMN qk_feature_kinds.layer IS 'Layer of the head whose score is split, from 0';
COMMENT ON COLUMN qk_feature_kinds.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN qk_feature_kinds.source_role IS 'Role whose key is read; A-B: the score of role A less that of role B';
COMMENT ON COLUMN qk_feature_kinds.query_kind IS 'Kind of the query part, as in qk_feature_pairs';
COMMENT ON COLUMN qk_feature_kinds.query_layer IS 'Layer of the query parts; NULL for embedding, position and query_bias';
COMMENT ON COLUMN qk_feature_kinds.key_kind IS 'Kind of the key part, as in qk_feature_pairs';
COMMENT ON COLUMN qk_feature_kinds.key_layer IS 'Layer of the key parts; NULL for embedding, position and key_bias';
COMMENT ON COLUMN qk_feature_kinds.n_part_pairs IS 'Pairs that are there in some prompt';
COMMENT ON COLUMN qk_feature_kinds.n IS 'Prompts';
COMMENT ON COLUMN qk_feature_kinds.mean IS 'Mean of the sum of these pairs over prompts, in units of the softmax''s argument';
COMMENT ON COLUMN qk_feature_kinds.sd IS 'Standard deviation of that sum over prompts (n - 1)';
COMMENT ON COLUMN qk_feature_kinds.score_share IS 'mean / mean score; NULL where the mean score is 0';
COMMENT ON COLUMN qk_feature_kinds.covariance_share IS 'cov(sum, score) / var(score) over prompts; NULL where the score does not vary';
