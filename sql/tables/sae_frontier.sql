-- formula: 3
-- per: site
-- below: layer < n_layers
CREATE TABLE sae_frontier (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    sae_variant VARCHAR,
    architecture VARCHAR NOT NULL,
    sparsity_setting VARCHAR NOT NULL CHECK (sparsity_setting IN ('k', 'l1_coefficient', 'l0_coefficient')),
    sparsity DOUBLE NOT NULL CHECK (sparsity >= 0),
    d_sae INTEGER NOT NULL CHECK (d_sae > 0),
    l0 DOUBLE NOT NULL CHECK (l0 >= 0),
    ce_recovered DOUBLE,
    ce_recovered_mean DOUBLE,
    explained_variance DOUBLE CHECK (explained_variance <= 1.000001),
    dead_fraction DOUBLE NOT NULL CHECK (dead_fraction BETWEEN 0 AND 1),
    mse DOUBLE NOT NULL CHECK (mse >= 0),
    kl DOUBLE NOT NULL CHECK (kl >= -1e-6),
    ce_clean DOUBLE NOT NULL CHECK (ce_clean >= 0),
    ce_spliced DOUBLE NOT NULL CHECK (ce_spliced >= 0),
    ce_zero DOUBLE NOT NULL CHECK (ce_zero >= 0),
    ce_mean DOUBLE NOT NULL CHECK (ce_mean >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens > 0),
    training_tokens BIGINT NOT NULL CHECK (training_tokens > 0),
    learning_rate DOUBLE NOT NULL CHECK (learning_rate >= 0),
    seed BIGINT NOT NULL,
    PRIMARY KEY (study, layer, sae_variant),
    CHECK ((ce_zero <= ce_clean) = (ce_recovered IS NULL))
);
COMMENT ON TABLE sae_frontier IS 'One row per variant of a study''s sweep and layer: SAEs of several architectures and sparsities, trained in lockstep on the same batches and measured on the same held-out tokens, for the frontier of L0 against CE loss recovered. Measures are defined as in sae_evaluation; the SAEs themselves are not kept. Empty without variants in the section sweep.';
COMMENT ON COLUMN sae_frontier.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_frontier.layer IS 'Layer whose z_cat the SAE reads and reconstructs, from 0';
COMMENT ON COLUMN sae_frontier.sae_variant IS 'Architecture and settings that the study gives the variant; the others are those of its section sae';
COMMENT ON COLUMN sae_frontier.architecture IS 'Name of the SAE architecture, defined in the view sae_architectures';
COMMENT ON COLUMN sae_frontier.sparsity_setting IS 'Setting that decides how sparse the SAE becomes: k, l1_coefficient or l0_coefficient';
COMMENT ON COLUMN sae_frontier.sparsity IS 'Its value: active features per token (k), or a weight in the loss on inputs scaled as in attention_sae.input_scale';
COMMENT ON COLUMN sae_frontier.d_sae IS 'Number of features';
COMMENT ON COLUMN sae_frontier.l0 IS 'Mean number of active features per held-out token';
COMMENT ON COLUMN sae_frontier.ce_recovered IS 'CE loss recovered against zero ablation: 1 - (ce_spliced - ce_clean) / (ce_zero - ce_clean). NULL where zero ablation does not raise the cross-entropy; unstable where it hardly does';
COMMENT ON COLUMN sae_frontier.ce_recovered_mean IS 'The same with ce_mean in place of ce_zero';
COMMENT ON COLUMN sae_frontier.explained_variance IS '1 - residual variance / total variance, both summed over dimensions; NULL where z does not vary';
COMMENT ON COLUMN sae_frontier.dead_fraction IS 'Share of features active on none of n_tokens held-out tokens';
COMMENT ON COLUMN sae_frontier.mse IS 'Mean over tokens and dimensions of (x - x_hat)^2, in units of z squared';
COMMENT ON COLUMN sae_frontier.kl IS 'Mean KL(clean || spliced) between next-token distributions, nats';
COMMENT ON COLUMN sae_frontier.ce_clean IS 'Mean next-token cross-entropy of the unchanged model, nats';
COMMENT ON COLUMN sae_frontier.ce_spliced IS 'The same with z of this layer replaced by x_hat, nats';
COMMENT ON COLUMN sae_frontier.ce_zero IS 'The same with z of this layer replaced by 0, nats';
COMMENT ON COLUMN sae_frontier.ce_mean IS 'The same with z of this layer replaced by its mean over the training split, nats';
COMMENT ON COLUMN sae_frontier.n_tokens IS 'Held-out tokens behind l0, explained_variance, mse and dead_fraction';
COMMENT ON COLUMN sae_frontier.training_tokens IS 'Activation rows seen in training';
COMMENT ON COLUMN sae_frontier.learning_rate IS 'Peak learning rate of Adam';
COMMENT ON COLUMN sae_frontier.seed IS 'Seed of initialisation and resampling, the same for all variants of a layer';
