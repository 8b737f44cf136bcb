-- formula: 2
-- per: site
-- references: feature_statistics (study, layer, feature)
-- below: layer < n_layers, feature < d_sae, promoted_token_id < d_vocab
CREATE TABLE feature_loss (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    position_class VARCHAR CHECK (position_class IN ('due_by_induction', 'due', 'other')),
    chosen_by VARCHAR NOT NULL CHECK (chosen_by IN ('induction', 'activation')),
    promoted_token_id INTEGER NOT NULL CHECK (promoted_token_id >= 0),
    n_sequences BIGINT NOT NULL CHECK (n_sequences > 0),
    n_active_sequences BIGINT NOT NULL CHECK (n_active_sequences >= n_sequences),
    n_documents BIGINT NOT NULL CHECK (n_documents > 0),
    forward_passes BIGINT NOT NULL CHECK (forward_passes = 2 * n_sequences),
    n BIGINT NOT NULL CHECK (n >= 0),
    n_active BIGINT NOT NULL CHECK (n_active BETWEEN 0 AND n),
    loss_increase DOUBLE NOT NULL CHECK (loss_increase >= 0),
    loss_decrease DOUBLE NOT NULL CHECK (loss_decrease >= 0),
    increase_share DOUBLE CHECK (increase_share BETWEEN 0 AND 1.000001),
    ci_low DOUBLE CHECK (ci_low BETWEEN 0 AND 1.000001),
    ci_high DOUBLE CHECK (ci_high BETWEEN 0 AND 1.000001),
    PRIMARY KEY (study, layer, feature, position_class),
    CHECK (ci_low <= ci_high),
    CHECK (n > 0 OR loss_increase + loss_decrease = 0)
);
COMMENT ON TABLE feature_loss IS 'Where the loss rises when a feature is removed from text (K24 App. E.3: 82% of the increase where the feature''s token is due). One row per ablated feature and class of predictions. z'' = z - f d wherever the feature is active, the SAE''s error kept; raw weights. Features: the features.loss_features of the layer with the largest summed activation, those of the family induction first. Sequences: a seeded sample of features.loss_sequences among those in which the feature is active; in all others ablation changes nothing.';
COMMENT ON COLUMN feature_loss.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_loss.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_loss.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_loss.position_class IS 'Of B, the token with the largest logit effect: due_by_induction (the next token is B, and an earlier occurrence of the current token was followed by B), due (the next token is B otherwise), other';
COMMENT ON COLUMN feature_loss.chosen_by IS 'induction: of the family induction; activation: filled up by summed activation';
COMMENT ON COLUMN feature_loss.promoted_token_id IS 'Id of B';
COMMENT ON COLUMN feature_loss.n_sequences IS 'Sequences run';
COMMENT ON COLUMN feature_loss.n_active_sequences IS 'Sequences with at least one token at which the activation is above 0, from which those that were run were drawn';
COMMENT ON COLUMN feature_loss.n_documents IS 'Documents of the sequences run, which the interval resamples; a prediction is of the document it is made from';
COMMENT ON COLUMN feature_loss.forward_passes IS 'Cost: passes over one sequence, a clean one and one from the layer on for each';
COMMENT ON COLUMN feature_loss.n IS 'Predictions of this class, those from position 0, BOS and what the study leaves out apart';
COMMENT ON COLUMN feature_loss.n_active IS 'Of these, predictions from a token at which the feature is active';
COMMENT ON COLUMN feature_loss.loss_increase IS 'Sum over predictions whose cross-entropy rises of that rise, nats';
COMMENT ON COLUMN feature_loss.loss_decrease IS 'Sum over predictions whose cross-entropy falls of that fall, nats, as a positive number';
COMMENT ON COLUMN feature_loss.increase_share IS 'loss_increase / its sum over the classes of the feature; NULL where no loss rises';
COMMENT ON COLUMN feature_loss.ci_low IS 'Lower end of the 95% interval of increase_share over documents, since tokens of one text are not independent: Clopper & Pearson''s at as many independent predictions, weighted by their rise, as have the variance that resampling documents gives (Korn & Graubard 1998); NULL where the loss rises in fewer than two documents';
COMMENT ON COLUMN feature_loss.ci_high IS 'Upper end of the same interval';
