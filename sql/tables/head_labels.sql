-- formula: 1
-- below: layer < n_layers, head < n_heads, feature < d_sae
CREATE TABLE head_labels (
    study VARCHAR NOT NULL,
    layer INTEGER NOT NULL CHECK (layer >= 0),
    head INTEGER NOT NULL CHECK (head >= 0),
    feature INTEGER CHECK (feature >= 0),
    rater VARCHAR NOT NULL,
    label VARCHAR NOT NULL,
    class VARCHAR CHECK (class IN ('monosemantic', 'minor exception', 'bisemantic', 'polysemantic')),
    note VARCHAR NOT NULL,
    file VARCHAR NOT NULL,
    line INTEGER NOT NULL CHECK (line > 0),
    UNIQUE (study, layer, head, feature, rater),
    CHECK (class IS NULL OR feature IS NULL)
);
COMMENT ON TABLE head_labels IS 'What people say about heads, from the CSV files the study names (head_labels): one row per head and rater with a class, and one per feature of the head that the rater described. No rows where it names none. mechinterp label-sheet --heads writes a sheet to fill in.';
COMMENT ON COLUMN head_labels.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_labels.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN head_labels.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_labels.feature IS 'Feature of the layer''s SAE that the row describes; NULL: the row is about the head itself';
COMMENT ON COLUMN head_labels.rater IS 'Who gave the label';
COMMENT ON COLUMN head_labels.label IS 'What the feature means or the head does, in the rater''s words; may be empty';
COMMENT ON COLUMN head_labels.class IS 'How many things the head does, judged from its top ten features: monosemantic, minor exception (one thing but for a minor exception), bisemantic or polysemantic (K24 Table 3); NULL on rows of features';
COMMENT ON COLUMN head_labels.note IS 'Remark, may be empty';
COMMENT ON COLUMN head_labels.file IS 'Name of the file the label stands in';
COMMENT ON COLUMN head_labels.line IS 'Its line there';
