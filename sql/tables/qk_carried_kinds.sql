-- formula: 1
-- below: layer < n_layers, head < n_heads, carrier_layer < n_layers, carrier_head < n_heads, query_layer < n_layers, key_layer < n_layers
CREATE TABLE qk_carried_kinds (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    carrier_layer INTEGER NOT NULL CHECK (carrier_layer >= 0),
    carrier_head INTEGER NOT NULL CHECK (carrier_head >= 0),
    name_order VARCHAR NOT NULL CHECK (name_order IN ('ABBA', 'BABA')),
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
    UNIQUE (study, task, layer, head, carrier_layer, carrier_head, name_order, source_role, query_kind, query_layer, key_kind, key_layer)
);
COMMENT ON TABLE qk_carried_kinds IS 'Shares of attention scores by kinds of parts: the pairs of qk_carried_pairs, all of them, summed over features. One row per head, carrier, order of names, source role, and kind and layer of both parts; mean, share and covariance_share may be summed further and come to the whole score. K24''s error terms are the rows with sae_error or residual_error on either side.';
COMMENT ON COLUMN qk_carried_kinds.study IS 'Study the row belongs to';
COMMENT ON COLUMN qk_carried_kinds.task IS 'Task whose prompts were run';
COMMENT ON COLUMN qk_carried_kinds.layer IS 'Layer of the head whose score is split, from 0';
COMMENT ON COLUMN qk_carried_kinds.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN qk_carried_kinds.carrier_layer IS 'Layer of the carrier head, from 0';
COMMENT ON COLUMN qk_carried_kinds.carrier_head IS 'Carrier head within its layer, from 0: it reads the stream at qk_features.carried_from and writes at the destination';
COMMENT ON COLUMN qk_carried_kinds.name_order IS 'ABBA (IO is named first) or BABA, as in ioi_prompts; prompts of one order only';
COMMENT ON COLUMN qk_carried_kinds.source_role IS 'Role whose key is read: Name1 or Name2, the first and the second name of the prompt (IO and S1 in ABBA, S1 and IO in BABA prompts); A-B: the score of role A less that of role B, pair by pair';
COMMENT ON COLUMN qk_carried_kinds.query_kind IS 'Kind of the query part, as in qk_carried_pairs';
COMMENT ON COLUMN qk_carried_kinds.query_layer IS 'Layer of the query parts; NULL for embedding, position, value_bias and not_carried';
COMMENT ON COLUMN qk_carried_kinds.key_kind IS 'Kind of the key part, as in qk_carried_pairs';
COMMENT ON COLUMN qk_carried_kinds.key_layer IS 'Layer of the key parts; NULL for embedding, position and key_bias';
COMMENT ON COLUMN qk_carried_kinds.n_part_pairs IS 'Pairs that are there in some prompt';
COMMENT ON COLUMN qk_carried_kinds.n IS 'Prompts';
COMMENT ON COLUMN qk_carried_kinds.mean IS 'Mean of the sum of these pairs over prompts, in units of the softmax''s argument';
COMMENT ON COLUMN qk_carried_kinds.sd IS 'Standard deviation of that sum over prompts (n - 1)';
COMMENT ON COLUMN qk_carried_kinds.score_share IS 'mean / mean score; NULL where the mean score is 0';
COMMENT ON COLUMN qk_carried_kinds.covariance_share IS 'cov(sum, score) / var(score) over prompts; NULL where the score does not vary';
