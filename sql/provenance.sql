-- What every table has: `study`, which tables declare among their columns and need not comment on,
-- and the columns that the lake adds after the declared ones.
CREATE TABLE provenance (
    study VARCHAR,
    run_id VARCHAR,
    code_version VARCHAR,
    formula_version INTEGER,
    model_version VARCHAR,
    corpus_version VARCHAR,
    sae_version VARCHAR
);
COMMENT ON TABLE provenance IS 'Where the rows of a table come from';
COMMENT ON COLUMN provenance.study IS 'Study that the row belongs to (a YAML file of settings for one model and corpus)';
COMMENT ON COLUMN provenance.run_id IS 'Dagster run that wrote the row';
COMMENT ON COLUMN provenance.code_version IS 'Code version of the asset that computed the row';
COMMENT ON COLUMN provenance.formula_version IS 'Version of the formula that the table''s columns are computed by; raised when their definition changes';
COMMENT ON COLUMN provenance.model_version IS 'Data version (weights hash) of the language model the row was computed from; NULL where no model took part';
COMMENT ON COLUMN provenance.corpus_version IS 'Data version of the tokenized corpus or prompt set the row was computed from; NULL where none took part';
COMMENT ON COLUMN provenance.sae_version IS 'Data version (weights hash) of the attention SAE the row was computed from; NULL where no SAE took part';
