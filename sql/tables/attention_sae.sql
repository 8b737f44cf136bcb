-- formula: 4
-- per: site
-- rows: one
-- below: layer < n_layers
CREATE TABLE attention_sae (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    architecture VARCHAR NOT NULL,
    d_in INTEGER NOT NULL CHECK (d_in > 0),
    d_sae INTEGER NOT NULL CHECK (d_sae > 0),
    k INTEGER CHECK (k > 0),
    l1_coefficient DOUBLE CHECK (l1_coefficient >= 0),
    l0_coefficient DOUBLE CHECK (l0_coefficient >= 0),
    trained_on VARCHAR NOT NULL CHECK (trained_on IN ('raw', 'processed')),
    training_source VARCHAR CHECK (training_source IN ('cache', 'forward')),
    compute_dtype VARCHAR,
    training_tokens BIGINT CHECK (training_tokens > 0),
    steps BIGINT CHECK (steps > 0),
    batch_size INTEGER CHECK (batch_size > 0),
    learning_rate DOUBLE CHECK (learning_rate >= 0),
    input_scale DOUBLE CHECK (input_scale > 0),
    outlier_variance_share DOUBLE CHECK (outlier_variance_share BETWEEN 0 AND 1),
    resampled_features BIGINT CHECK (resampled_features >= 0),
    seed BIGINT,
    path VARCHAR NOT NULL,
    weights_hash VARCHAR NOT NULL CHECK (regexp_full_match(weights_hash, '[0-9a-f]{16}')),
    external_folder VARCHAR,
    external_hash VARCHAR CHECK (regexp_full_match(external_hash, '[0-9a-f]{16}')),
    external_warnings VARCHAR,
    PRIMARY KEY (study, layer),
    CHECK (k <= d_sae),
    CHECK ((external_folder IS NULL) = (external_hash IS NULL)),
    CHECK ((external_folder IS NULL) = (training_source IS NOT NULL)),
    CHECK ((external_folder IS NULL) = (training_tokens IS NOT NULL))
);
COMMENT ON TABLE attention_sae IS 'One row per sparse autoencoder trained on z_cat of one layer (K24 section 2): f = activation((x - b_dec) W_enc + b_enc), x_hat = f W_dec + b_dec, decoder rows of unit norm. Weights are in path, in SAELens''s format. An SAE that was trained elsewhere (external_folder) has NULL in every column that only its training would tell. Quality is in sae_evaluation.';
COMMENT ON COLUMN attention_sae.study IS 'Study the row belongs to';
COMMENT ON COLUMN attention_sae.layer IS 'Layer whose z_cat the SAE reads and reconstructs, from 0';
COMMENT ON COLUMN attention_sae.architecture IS 'Name of the SAE architecture, defined in the view sae_architectures';
COMMENT ON COLUMN attention_sae.d_in IS 'Width of z_cat: n_heads * d_head';
COMMENT ON COLUMN attention_sae.d_sae IS 'Number of features';
COMMENT ON COLUMN attention_sae.k IS 'Most features that can be active at a token; NULL unless the architecture fixes it';
COMMENT ON COLUMN attention_sae.l1_coefficient IS 'Weight of the L1 penalty, on inputs scaled by input_scale; NULL unless the architecture has one';
COMMENT ON COLUMN attention_sae.l0_coefficient IS 'Weight of the number of active features per token in the loss, on inputs scaled by input_scale; NULL unless the architecture has one';
COMMENT ON COLUMN attention_sae.trained_on IS 'The weights whose z the SAE learned: raw, or processed, for an SAE from elsewhere that reads z less c = b_V + ln1.b W_V. The stored SAE takes raw z in either case: c was added to b_dec, which is exact (sae_adoption)';
COMMENT ON COLUMN attention_sae.training_source IS 'Where rows came from in training. cache: the activation cache of the layer. forward: forward passes shared by all layers of the run; NULL for an SAE not trained in this study';
COMMENT ON COLUMN attention_sae.compute_dtype IS 'Type of the factors of the encoder''s matrix product in training; weights and sums are float32. NULL for an SAE not trained in this study';
COMMENT ON COLUMN attention_sae.training_tokens IS 'Activation rows seen in training, repeated passes counted each time';
COMMENT ON COLUMN attention_sae.steps IS 'Optimiser steps';
COMMENT ON COLUMN attention_sae.batch_size IS 'Rows per step';
COMMENT ON COLUMN attention_sae.learning_rate IS 'Peak learning rate of Adam';
COMMENT ON COLUMN attention_sae.input_scale IS 'Factor by which rows were multiplied in training, so that E||x - mean||^2 = d_in over a sample without its 0.1% of rows of largest norm; 1 if they were not. It is folded into the stored biases: the SAE takes z as it is';
COMMENT ON COLUMN attention_sae.outlier_variance_share IS 'Share of sum ||x - mean||^2 of that sample that its 0.1% of rows of largest norm add; about 0.01 in language models. The same of held-out tokens: sae_evaluation';
COMMENT ON COLUMN attention_sae.resampled_features IS 'Dead features given a new direction in training (architectures that resample; Bricken et al. 2023), a feature counted each time';
COMMENT ON COLUMN attention_sae.seed IS 'Seed of initialisation and resampling';
COMMENT ON COLUMN attention_sae.path IS 'Folder under $MECHINTERP_HOME/tensors; its highest version holds cfg.json and sae_weights.safetensors in SAELens format';
COMMENT ON COLUMN attention_sae.weights_hash IS 'SHA-256 of architecture, k and weights, 16 hex digits: the data version of everything computed from this SAE';
COMMENT ON COLUMN attention_sae.external_folder IS 'Folder that the SAE was taken from (study setting sae.path); NULL for an SAE trained in this study';
COMMENT ON COLUMN attention_sae.external_hash IS 'SHA-256 of the SHA-256 of its cfg.json and of its sae_weights.safetensors, 16 hex digits; NULL for an SAE trained in this study';
COMMENT ON COLUMN attention_sae.external_warnings IS 'In what the folder''s own account of its training does not match this study (model name, context, BOS, keys that are not read), and what the measures of sae_adoption leave open, separated by semicolons; NULL where it matches, and for an SAE trained in this study';
