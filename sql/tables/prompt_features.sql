-- formula: 1
-- references: prompt_tokens (study, prompt_set, prompt_number, position)
-- references: attention_sae (study, layer)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE prompt_features (
    study VARCHAR,
    prompt_set VARCHAR,
    prompt_number INTEGER CHECK (prompt_number >= 0),
    layer INTEGER CHECK (layer >= 0),
    position INTEGER CHECK (position >= 0),
    feature INTEGER CHECK (feature >= 0),
    activation DOUBLE NOT NULL CHECK (activation > 0),
    PRIMARY KEY (study, prompt_set, prompt_number, layer, position, feature)
);
COMMENT ON TABLE prompt_features IS 'One row per active feature at a counted token of a prompt of the study''s own: every layer with an SAE, raw z.';
COMMENT ON COLUMN prompt_features.study IS 'Study the row belongs to';
COMMENT ON COLUMN prompt_features.prompt_set IS 'Name of the set that the prompt is in (section prompts of the study, or a file that it names; kept: kept in the explorer)';
COMMENT ON COLUMN prompt_features.prompt_number IS 'Number of the prompt in its set, from 0';
COMMENT ON COLUMN prompt_features.layer IS 'Layer of the SAE';
COMMENT ON COLUMN prompt_features.position IS 'Position of the token in the prompt, from 0 (BOS where prompts begin with it)';
COMMENT ON COLUMN prompt_features.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN prompt_features.activation IS 'Activation of the feature at this token, above 0, in units of z';
