-- formula: 1
-- per: site
-- rows: one per feature
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_statistics (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    n_active BIGINT NOT NULL CHECK (n_active >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens >= 0),
    n_active_sequences BIGINT NOT NULL CHECK (n_active_sequences >= 0),
    density DOUBLE CHECK (density BETWEEN 0 AND 1),
    log10_density DOUBLE CHECK (log10_density <= 0),
    mean_activation DOUBLE CHECK (mean_activation > 0),
    max_activation DOUBLE CHECK (max_activation > 0),
    encoder_norm DOUBLE NOT NULL CHECK (encoder_norm >= 0),
    decoder_norm DOUBLE NOT NULL CHECK (decoder_norm >= 0),
    encoder_decoder_cosine DOUBLE CHECK (encoder_decoder_cosine BETWEEN -1.000001 AND 1.000001),
    encoder_bias DOUBLE NOT NULL,
    PRIMARY KEY (study, layer, feature),
    CHECK (n_active_sequences <= n_active AND n_active <= n_tokens),
    CHECK ((n_active = 0) = (n_active_sequences = 0)),
    CHECK ((n_active = 0) = (log10_density IS NULL)),
    CHECK ((n_active = 0) = (mean_activation IS NULL)),
    CHECK ((n_active = 0) = (max_activation IS NULL)),
    CHECK (mean_activation <= max_activation * 1.000001)
);
COMMENT ON TABLE feature_statistics IS 'One row per feature of an attention-output SAE, fired or not: how often and how strongly it is active over the tokens of the corpus that one pass read. Position 0 and every BOS token are left out of numerators and denominators.';
COMMENT ON COLUMN feature_statistics.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_statistics.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_statistics.feature IS 'Index of the feature in the SAE, 0 .. d_sae - 1';
COMMENT ON COLUMN feature_statistics.n_active IS 'Tokens at which the activation is above 0';
COMMENT ON COLUMN feature_statistics.n_tokens IS 'Tokens read: the denominator of density, equal for all features of a layer';
COMMENT ON COLUMN feature_statistics.n_active_sequences IS 'Sequences with at least one token at which the activation is above 0';
COMMENT ON COLUMN feature_statistics.density IS 'n_active / n_tokens, 0 to 1; NULL when no token was read';
COMMENT ON COLUMN feature_statistics.log10_density IS 'log10 of density; NULL for a feature that never fired';
COMMENT ON COLUMN feature_statistics.mean_activation IS 'Mean activation over the tokens at which it is above 0, in units of z; NULL for a feature that never fired';
COMMENT ON COLUMN feature_statistics.max_activation IS 'Largest activation, in units of z; NULL for a feature that never fired';
COMMENT ON COLUMN feature_statistics.encoder_norm IS 'L2 norm of the column of W_enc';
COMMENT ON COLUMN feature_statistics.decoder_norm IS 'L2 norm of the row of W_dec (1 for an SAE trained with unit-norm decoder rows); logit effects scale with it';
COMMENT ON COLUMN feature_statistics.encoder_decoder_cosine IS 'Cosine between the column of W_enc and the row of W_dec, -1 to 1; NULL when either is zero';
COMMENT ON COLUMN feature_statistics.encoder_bias IS 'b_enc of the feature';
