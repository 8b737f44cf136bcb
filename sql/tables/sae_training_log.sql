-- formula: 3
-- per: site
-- references: attention_sae (study, layer)
-- below: layer < n_layers
CREATE TABLE sae_training_log (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    step BIGINT CHECK (step > 0),
    training_tokens BIGINT NOT NULL CHECK (training_tokens > 0),
    step_learning_rate DOUBLE NOT NULL CHECK (step_learning_rate >= 0),
    training_loss DOUBLE NOT NULL,
    mse DOUBLE NOT NULL CHECK (mse >= 0),
    sparsity_loss DOUBLE NOT NULL CHECK (sparsity_loss >= 0),
    l0 DOUBLE NOT NULL CHECK (l0 >= 0),
    batch_explained_variance DOUBLE CHECK (batch_explained_variance <= 1.000001),
    recent_dead_fraction DOUBLE NOT NULL CHECK (recent_dead_fraction BETWEEN 0 AND 1),
    resampled_features BIGINT NOT NULL CHECK (resampled_features >= 0),
    clipped_rows BIGINT NOT NULL CHECK (clipped_rows >= 0),
    PRIMARY KEY (study, layer, step)
);
COMMENT ON TABLE sae_training_log IS 'Course of an SAE''s training: one row every few steps, each with means over the batches since the row before it. Measured on training batches before their update; sae_evaluation has the held-out numbers.';
COMMENT ON COLUMN sae_training_log.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_training_log.layer IS 'Layer of the SAE, from 0';
COMMENT ON COLUMN sae_training_log.step IS 'Optimiser steps done';
COMMENT ON COLUMN sae_training_log.training_tokens IS 'Activation rows seen';
COMMENT ON COLUMN sae_training_log.step_learning_rate IS 'Learning rate of the last step: linear warm-up, constant, linear decay; and 0.1x rising along a cosine after features were resampled';
COMMENT ON COLUMN sae_training_log.training_loss IS 'Training loss per token on scaled inputs: squared error summed over dimensions, plus sparsity_loss';
COMMENT ON COLUMN sae_training_log.mse IS 'Mean over tokens and dimensions of (x - x_hat)^2, in units of z squared (not scaled)';
COMMENT ON COLUMN sae_training_log.sparsity_loss IS 'standard: L1 coefficient times the sum of activations, per token. topk: aux-k loss times its coefficient, per token; 0 while no feature is dead';
COMMENT ON COLUMN sae_training_log.l0 IS 'Mean number of active features per token';
COMMENT ON COLUMN sae_training_log.batch_explained_variance IS '1 - variance of x - x_hat / variance of x, both summed over dimensions, each about its own batch''s mean; NULL where x does not vary';
COMMENT ON COLUMN sae_training_log.recent_dead_fraction IS 'Share of features that were active on none of the last dead_after_tokens training tokens (0 until that many were seen)';
COMMENT ON COLUMN sae_training_log.resampled_features IS 'Dead features resampled since the row before';
COMMENT ON COLUMN sae_training_log.clipped_rows IS 'Rows since the row before that lay farther from the mean than the setting sae.max_row_norm allows and were drawn in to that distance; mse, training_loss and batch_explained_variance are of the rows so changed';
