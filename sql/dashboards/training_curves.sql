-- Course of the training of each layer's SAE.
SELECT
    layer,
    step,
    training_tokens,
    batch_explained_variance,
    l0,
    recent_dead_fraction,
    training_loss,
    step_learning_rate,
    resampled_features
FROM sae_training_log
WHERE study = $study
ORDER BY layer, step;
