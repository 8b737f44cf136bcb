-- formula: 3
-- per: site
-- below: layer < n_layers, feature < d_sae, token_id < d_vocab
CREATE TABLE feature_logit_effects (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    extreme VARCHAR CHECK (extreme IN ('top', 'bottom')),
    rank INTEGER CHECK (rank >= 0),
    token_id INTEGER NOT NULL CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    logit_effect DOUBLE NOT NULL,
    PRIMARY KEY (study, layer, feature, extreme, rank),
    UNIQUE (study, layer, feature, extreme, token_id)
);
COMMENT ON TABLE feature_logit_effects IS 'One row per feature, direction and rank: the tokens whose logit the feature''s decoder direction raises and lowers most through the direct path. Features with a zero decoder row have no rows.';
COMMENT ON COLUMN feature_logit_effects.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_logit_effects.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_logit_effects.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_logit_effects.extreme IS 'top: largest effects; bottom: smallest effects';
COMMENT ON COLUMN feature_logit_effects.rank IS 'Rank within the extreme, 0 = most extreme; equal effects are ranked by token id';
COMMENT ON COLUMN feature_logit_effects.token_id IS 'Id of the token';
COMMENT ON COLUMN feature_logit_effects.token IS 'Text of the token';
COMMENT ON COLUMN feature_logit_effects.logit_effect IS 'Entry of d_i W_O W_U: d_i the row of W_dec as stored (its norm: feature_statistics.decoder_norm), W_O and W_U processed weights (centred; final LayerNorm weight folded into W_U). Logits per unit of activation before the final LayerNorm''s division by its scale, which is left out: compare effects within a feature, not with logits';
