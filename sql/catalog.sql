-- The catalog's own relations: which versions exist, where they come from, which are stale.
-- The lake fills the two tables and adds one view per declared table (current rows), the same in schema `history`
-- (every version kept, with columns `partition` and `version`), and the views of sql/views.

CREATE TABLE declared_tables (
    table_name VARCHAR,
    formula_version INTEGER,
    comment VARCHAR
);
COMMENT ON TABLE declared_tables IS 'One row per table declared in sql/tables';
COMMENT ON COLUMN declared_tables.table_name IS 'Name of the table';
COMMENT ON COLUMN declared_tables.formula_version IS 'Version of the definitions of its columns as declared now';
COMMENT ON COLUMN declared_tables.comment IS 'What one of its rows is';

CREATE TABLE versions (
    table_name VARCHAR,
    partition VARCHAR,
    version INTEGER,
    is_current BOOLEAN,
    data_version VARCHAR,
    study VARCHAR,
    run_id VARCHAR,
    code_version VARCHAR,
    formula_version INTEGER,
    model_version VARCHAR,
    corpus_version VARCHAR,
    sae_version VARCHAR,
    inputs MAP(VARCHAR, VARCHAR),
    rows BIGINT,
    bytes BIGINT,
    written_at TIMESTAMP,
    same_columns BOOLEAN,
    path VARCHAR
);
COMMENT ON TABLE versions IS 'One row per version of a table partition that is still stored';
COMMENT ON COLUMN versions.table_name IS 'Name of the table';
COMMENT ON COLUMN versions.partition IS 'Partition key, such as a study or a site (study.L00)';
COMMENT ON COLUMN versions.version IS 'Version number within table and partition, from 1 upwards';
COMMENT ON COLUMN versions.is_current IS 'Whether the table''s view shows this version';
COMMENT ON COLUMN versions.data_version IS 'SHA-256 of the declared columns; equal for equal content, whichever run wrote it';
COMMENT ON COLUMN versions.study IS 'Study the rows belong to';
COMMENT ON COLUMN versions.run_id IS 'Dagster run that wrote the version';
COMMENT ON COLUMN versions.code_version IS 'Code version of the asset that computed it';
COMMENT ON COLUMN versions.formula_version IS 'Formula version that it was computed by';
COMMENT ON COLUMN versions.model_version IS 'Data version of the language model it was computed from';
COMMENT ON COLUMN versions.corpus_version IS 'Data version of the tokenized corpus or prompt set it was computed from';
COMMENT ON COLUMN versions.sae_version IS 'Data version of the attention SAE it was computed from';
COMMENT ON COLUMN versions.inputs IS 'Data version of each input when it was read; inputs in this lake are named table/partition; NULL once superseded';
COMMENT ON COLUMN versions.rows IS 'Number of rows';
COMMENT ON COLUMN versions.bytes IS 'Size of the Parquet file in bytes';
COMMENT ON COLUMN versions.written_at IS 'When the version became current (UTC)';
COMMENT ON COLUMN versions.same_columns IS 'Whether its columns and types are those declared now';
COMMENT ON COLUMN versions.path IS 'Parquet file';

CREATE VIEW lineage AS
SELECT
    versions.* EXCLUDE (is_current),
    declared_tables.formula_version AS current_formula_version
FROM versions
LEFT JOIN declared_tables USING (table_name)
WHERE versions.is_current;
COMMENT ON VIEW lineage IS 'One row per table partition: its current version and what that came from';
COMMENT ON COLUMN lineage.current_formula_version IS 'Formula version declared now; NULL where the table is no longer declared';

CREATE VIEW stale_partitions AS
SELECT
    table_name, partition, study, version, 'formula' AS cause, NULL::VARCHAR AS input,
    formula_version::VARCHAR AS recorded, current_formula_version::VARCHAR AS current
FROM lineage
WHERE formula_version <> current_formula_version
UNION ALL
SELECT table_name, partition, study, version, 'columns', NULL, NULL, NULL
FROM lineage
WHERE NOT same_columns
UNION ALL
SELECT
    used.table_name, used.partition, used.study, used.version, 'input', used.input.key,
    used.input.value, source.data_version
FROM (SELECT *, unnest(map_entries(inputs)) AS input FROM lineage) AS used
JOIN lineage AS source ON used.input.key = source.table_name || '/' || source.partition
WHERE used.input.value <> source.data_version;
COMMENT ON VIEW stale_partitions IS 'One row per reason why a table partition should be materialized again; only direct reasons, as what comes after may turn out unchanged';
COMMENT ON COLUMN stale_partitions.cause IS 'formula: the formula version changed; columns: the declared columns changed; input: an input has other data now';
COMMENT ON COLUMN stale_partitions.input IS 'The input that changed (table/partition), if that is the cause';
COMMENT ON COLUMN stale_partitions.recorded IS 'Formula version or input data version that the partition was computed from';
COMMENT ON COLUMN stale_partitions.current IS 'The same as of now';

-- SELECT * FROM table_version('head_scores', 3): the rows of every partition's version 3.
-- From another database that attached the catalog as `lab`: FROM lab.history.head_scores WHERE version = 3.
CREATE MACRO table_version(table_name, version) AS TABLE
FROM query('FROM history."' || table_name || '" WHERE version = ' || version);
