-- formula: 1
-- references: attention_sae (study, layer)
-- below: layer < n_layers, feature < d_sae
CREATE TABLE feature_labels (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    rater VARCHAR,
    label VARCHAR NOT NULL,
    verdict VARCHAR NOT NULL CHECK (verdict IN ('yes', 'no', 'unsure')),
    note VARCHAR NOT NULL,
    file VARCHAR NOT NULL,
    line INTEGER NOT NULL CHECK (line > 0),
    PRIMARY KEY (study, layer, feature, rater)
);
COMMENT ON TABLE feature_labels IS 'One row per feature and person who labelled it, from the CSV files the study names (labels). No rows where it names none. mechinterp label-sheet writes a random sample of features to fill in.';
COMMENT ON COLUMN feature_labels.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_labels.layer IS 'Layer of the SAE';
COMMENT ON COLUMN feature_labels.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_labels.rater IS 'Who gave the label';
COMMENT ON COLUMN feature_labels.label IS 'What the feature means, in the rater''s words; may be empty';
COMMENT ON COLUMN feature_labels.verdict IS 'Is the feature interpretable: yes, no or unsure';
COMMENT ON COLUMN feature_labels.note IS 'Remark, may be empty';
COMMENT ON COLUMN feature_labels.file IS 'Name of the file the label stands in';
COMMENT ON COLUMN feature_labels.line IS 'Its line there';
