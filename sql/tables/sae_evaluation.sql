-- formula: 5
-- per: site
-- rows: one
-- references: attention_sae (study, layer)
-- below: layer < n_layers
CREATE TABLE sae_evaluation (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens > 0),
    n_predictions BIGINT NOT NULL CHECK (n_predictions > 0),
    l0 DOUBLE NOT NULL CHECK (l0 >= 0),
    explained_variance DOUBLE CHECK (explained_variance <= 1.000001),
    fvu DOUBLE CHECK (fvu >= 0),
    typical_explained_variance DOUBLE CHECK (typical_explained_variance <= 1.000001),
    outlier_variance_share DOUBLE CHECK (outlier_variance_share BETWEEN 0 AND 1.000001),
    outlier_loss_share DOUBLE CHECK (outlier_loss_share BETWEEN 0 AND 1.000001),
    reconstruction_cosine DOUBLE NOT NULL CHECK (reconstruction_cosine BETWEEN -1.000001 AND 1.000001),
    mse DOUBLE NOT NULL CHECK (mse >= 0),
    ce_clean DOUBLE NOT NULL CHECK (ce_clean >= 0),
    ce_spliced DOUBLE NOT NULL CHECK (ce_spliced >= 0),
    ce_zero DOUBLE NOT NULL CHECK (ce_zero >= 0),
    ce_mean DOUBLE NOT NULL CHECK (ce_mean >= 0),
    ce_recovered DOUBLE,
    ce_recovered_mean DOUBLE,
    kl DOUBLE NOT NULL CHECK (kl >= -1e-6),
    kl_zero DOUBLE NOT NULL CHECK (kl_zero >= -1e-6),
    kl_mean DOUBLE NOT NULL CHECK (kl_mean >= -1e-6),
    kl_recovered DOUBLE CHECK (kl_recovered <= 1.000001),
    kl_recovered_mean DOUBLE CHECK (kl_recovered_mean <= 1.000001),
    dead_fraction DOUBLE NOT NULL CHECK (dead_fraction BETWEEN 0 AND 1),
    dead_fraction_tokens BIGINT NOT NULL CHECK (dead_fraction_tokens > 0),
    dead_fraction_100k DOUBLE CHECK (dead_fraction_100k BETWEEN dead_fraction AND 1),
    shrinkage DOUBLE CHECK (shrinkage >= 0),
    density_counts INTEGER[] NOT NULL,
    PRIMARY KEY (study, layer),
    CHECK (n_predictions <= n_tokens),
    CHECK (len(density_counts) = 32 AND list_min(density_counts) >= 0),
    CHECK ((ce_zero <= ce_clean) = (ce_recovered IS NULL))
);
COMMENT ON TABLE sae_evaluation IS 'One row per SAE: its quality on held-out tokens (K24 section 3). x = z_cat, x_hat = the SAE''s reconstruction. Position 0 and BOS tokens are left out of reconstruction measures, and z there is never replaced. Raw weights.';
COMMENT ON COLUMN sae_evaluation.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_evaluation.layer IS 'Layer of the SAE, from 0';
COMMENT ON COLUMN sae_evaluation.n_tokens IS 'Held-out tokens behind l0, explained_variance, fvu, reconstruction_cosine, mse, shrinkage and KL';
COMMENT ON COLUMN sae_evaluation.n_predictions IS 'Predictions behind cross-entropy: the n_tokens that have a next token in their sequence. What is predicted from position 0 or BOS is left out';
COMMENT ON COLUMN sae_evaluation.l0 IS 'Mean number of active features per token';
COMMENT ON COLUMN sae_evaluation.explained_variance IS '1 - residual variance / total variance, both summed over dimensions: residual variance = mean ||r - mean r||^2 with r = x - x_hat, total variance = mean ||x - mean x||^2. At most 1; NULL where x does not vary';
COMMENT ON COLUMN sae_evaluation.fvu IS 'Fraction of variance unexplained: mean ||x - x_hat||^2 / mean ||x - mean x||^2. Unlike explained_variance it counts a constant error; 1 - fvu = R^2; NULL where x does not vary';
COMMENT ON COLUMN sae_evaluation.typical_explained_variance IS 'explained_variance of the tokens that are left without the 0.1% of largest ||x||, with their own means. Where it differs from explained_variance, a few tokens decide that one. NULL where these x do not vary';
COMMENT ON COLUMN sae_evaluation.outlier_variance_share IS 'Share of sum ||x - mean x||^2 that the 0.1% of tokens of largest ||x|| carry: about 0.01 in language models; 0.001 if all were alike. NULL where x does not vary';
COMMENT ON COLUMN sae_evaluation.outlier_loss_share IS 'Share of sum ||x - x_hat||^2 that the same tokens carry. NULL where x_hat = x throughout';
COMMENT ON COLUMN sae_evaluation.reconstruction_cosine IS 'Mean over tokens of the cosine between x and x_hat';
COMMENT ON COLUMN sae_evaluation.mse IS 'Mean over tokens and dimensions of (x - x_hat)^2, in units of z squared';
COMMENT ON COLUMN sae_evaluation.ce_clean IS 'Mean next-token cross-entropy of the unchanged model, nats';
COMMENT ON COLUMN sae_evaluation.ce_spliced IS 'The same with z of this layer replaced by x_hat, nats';
COMMENT ON COLUMN sae_evaluation.ce_zero IS 'The same with z of this layer replaced by 0 (mode zero), nats';
COMMENT ON COLUMN sae_evaluation.ce_mean IS 'The same with z of this layer replaced by its mean over the training split (mode mean_corpus, reference corpus_train: one mean over all tokens but BOS, activation_statistics.mean_z), nats';
COMMENT ON COLUMN sae_evaluation.ce_recovered IS 'CE loss recovered: 1 - (ce_spliced - ce_clean) / (ce_zero - ce_clean). 1: splicing costs nothing; 0: as bad as zero ablation; above 1: splicing lowers the cross-entropy. Where ablation costs little (ce_zero - ce_clean near 0) the ratio is unstable: read it with the three values. NULL where zero ablation does not raise the cross-entropy';
COMMENT ON COLUMN sae_evaluation.ce_recovered_mean IS 'The same with ce_mean in place of ce_zero, usually the stricter reference. NULL where mean ablation does not raise the cross-entropy';
COMMENT ON COLUMN sae_evaluation.kl IS 'Mean over the n_tokens of KL(clean || spliced) between next-token distributions, nats';
COMMENT ON COLUMN sae_evaluation.kl_zero IS 'The same for z of this layer replaced by 0: KL(clean || zero-ablated), nats';
COMMENT ON COLUMN sae_evaluation.kl_mean IS 'The same for z of this layer replaced by that mean (mean_corpus): KL(clean || mean-ablated), nats';
COMMENT ON COLUMN sae_evaluation.kl_recovered IS '1 - kl / kl_zero. At most 1; below 0: worse than zero ablation. Unlike ce_recovered it counts every change of a prediction, also one that happens to help. NULL where zero ablation changes nothing';
COMMENT ON COLUMN sae_evaluation.kl_recovered_mean IS '1 - kl / kl_mean. NULL where mean ablation changes nothing';
COMMENT ON COLUMN sae_evaluation.dead_fraction IS 'Share of features active on none of dead_fraction_tokens held-out tokens; it falls as that number grows';
COMMENT ON COLUMN sae_evaluation.dead_fraction_tokens IS 'Tokens behind dead_fraction';
COMMENT ON COLUMN sae_evaluation.dead_fraction_100k IS 'Share of features active on none of the first 100,000 held-out tokens (K24''s definition of dead); NULL where fewer were evaluated. At least dead_fraction';
COMMENT ON COLUMN sae_evaluation.shrinkage IS 'Mean over tokens of ||x_hat|| / ||x||; below 1 an L1 penalty shrinks reconstructions. NULL where every x is 0';
COMMENT ON COLUMN sae_evaluation.density_counts IS 'Density histogram on the held-out tokens: features per bin of log10(share of tokens on which the feature is active). Entry i (from 0) counts the interval [-8 + i / 4, -7.75 + i / 4); the last entry, the 32nd, includes 0. Features that never fired are in no bin (dead_fraction). As rows: view sae_held_out_density_histogram';
