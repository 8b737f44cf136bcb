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

CREATE TABLE study_inputs (
    study VARCHAR,
    input VARCHAR,
    value VARCHAR,
    observed_at TIMESTAMP
);
COMMENT ON TABLE study_inputs IS 'One row per setting and file of a study as it was last looked at, which every command, page and sensor of the platform does';
COMMENT ON COLUMN study_inputs.study IS 'Study that is asked about';
COMMENT ON COLUMN study_inputs.input IS 'settings:<section>.<key>, or file:<key of the path>/<name>';
COMMENT ON COLUMN study_inputs.value IS 'The setting as JSON, or the fingerprint of the file or folder (SHA-256 of names and content, 16 hex digits; absent: there is none; unreadable)';
COMMENT ON COLUMN study_inputs.observed_at IS 'When any of these last changed (UTC)';

CREATE TABLE expected_partitions (
    table_name VARCHAR,
    partition VARCHAR,
    study VARCHAR
);
COMMENT ON TABLE expected_partitions IS 'One row per table partition that the studies ask for';
COMMENT ON COLUMN expected_partitions.table_name IS 'Name of the table';
COMMENT ON COLUMN expected_partitions.partition IS 'Partition key, such as a study or a site (study.L00)';
COMMENT ON COLUMN expected_partitions.study IS 'Study that asks for it';

CREATE TABLE begun_partitions (
    table_name VARCHAR,
    partition VARCHAR,
    study VARCHAR,
    run_id VARCHAR,
    begun_at TIMESTAMP
);
COMMENT ON TABLE begun_partitions IS 'One row per table partition that a run began to make: it is at work, or it was killed';
COMMENT ON COLUMN begun_partitions.table_name IS 'Name of the table';
COMMENT ON COLUMN begun_partitions.partition IS 'Partition key, such as a study or a site (study.L00)';
COMMENT ON COLUMN begun_partitions.study IS 'Study that it is made for';
COMMENT ON COLUMN begun_partitions.run_id IS 'Dagster run that began';
COMMENT ON COLUMN begun_partitions.begun_at IS 'When it began (UTC)';

CREATE VIEW stale_partitions AS
WITH declared AS (
    -- A table that is no longer declared is kept as it is: nothing can make it again.
    SELECT * FROM lineage WHERE current_formula_version IS NOT NULL
),
used AS (
    SELECT declared.* EXCLUDE (inputs), input.key AS input, input.value AS recorded
    FROM declared, unnest(map_entries(inputs)) AS entries(input)
),
causes AS (
    SELECT
        table_name, partition, study, version, 'formula' AS cause, NULL::VARCHAR AS input,
        formula_version::VARCHAR AS recorded, current_formula_version::VARCHAR AS current
    FROM declared
    WHERE formula_version <> current_formula_version
    UNION ALL
    SELECT table_name, partition, study, version, 'columns', NULL, NULL, NULL
    FROM declared
    WHERE NOT same_columns
    UNION ALL
    SELECT
        used.table_name, used.partition, used.study, used.version, 'input', used.input,
        used.recorded,
        CASE WHEN source.current_formula_version IS NOT NULL THEN source.data_version END
    FROM used
    JOIN lineage AS source ON used.input = source.table_name || '/' || source.partition
    WHERE used.recorded <> source.data_version OR source.current_formula_version IS NULL
    UNION ALL
    SELECT
        used.table_name, used.partition, used.study, used.version,
        split_part(used.input, ':', 1), used.input, used.recorded, now.value
    FROM used
    LEFT JOIN study_inputs AS now ON now.study = used.study AND now.input = used.input
    WHERE (starts_with(used.input, 'settings:') OR starts_with(used.input, 'file:'))
        AND used.study IN (SELECT study FROM study_inputs)
        AND used.recorded IS DISTINCT FROM now.value
    UNION ALL
    SELECT table_name, partition, study, NULL, 'missing', NULL, NULL, NULL
    FROM expected_partitions
    WHERE (table_name, partition) NOT IN (SELECT (table_name, partition) FROM lineage)
    UNION ALL
    SELECT begun.table_name, begun.partition, begun.study, lineage.version, 'unfinished', NULL, begun.run_id, NULL
    FROM begun_partitions AS begun
    LEFT JOIN lineage USING (table_name, partition)
)
SELECT
    *,
    CASE cause
        WHEN 'formula' THEN concat('formula ', recorded, ' -> ', current)
        WHEN 'columns' THEN 'its columns are declared otherwise now'
        WHEN 'input' THEN concat(
            input,
            CASE
                WHEN current IS NULL THEN ' is of a table that is no longer made'
                WHEN recorded = 'absent' THEN ' is there now'
                ELSE ' has other data'
            END
        )
        WHEN 'settings' THEN concat(
            substr(input, 10), ': ',
            CASE WHEN length(recorded) > 60 THEN left(recorded, 57) || '...' ELSE recorded END, ' -> ',
            CASE
                WHEN current IS NULL THEN 'no longer a setting'
                WHEN length(current) > 60 THEN left(current, 57) || '...'
                ELSE current
            END
        )
        WHEN 'file' THEN concat(
            'file ', substr(input, 6),
            CASE
                WHEN coalesce(current, '') = '' THEN ' is no longer named'
                WHEN current = 'absent' THEN ' is gone'
                WHEN recorded = 'absent' THEN ' is there now'
                ELSE ' changed'
            END
        )
        WHEN 'missing' THEN 'never made'
        WHEN 'unfinished' THEN concat('begun by run ', left(recorded, 8), ' and not published')
    END AS reason
FROM causes;
COMMENT ON VIEW stale_partitions IS 'One row per reason why a table partition should be materialized (again); only direct reasons, as what comes after may turn out unchanged';
COMMENT ON COLUMN stale_partitions.cause IS 'formula: the formula version changed; columns: the declared columns changed; input: a table that it was made from has other data now, or is no longer made; settings, file: a setting or file that it was made from changed; missing: it was never made; unfinished: a run began it and has not published it';
COMMENT ON COLUMN stale_partitions.input IS 'What changed: table/partition, settings:<section>.<key>, or file:<key>/<name>';
COMMENT ON COLUMN stale_partitions.recorded IS 'What it was made with: formula version, data version of the input (absent: there was none), setting as JSON, fingerprint; of an unfinished one the run';
COMMENT ON COLUMN stale_partitions.current IS 'The same as of now; NULL where there is none any more';
COMMENT ON COLUMN stale_partitions.reason IS 'The reason in words';

-- SELECT * FROM table_version('head_scores', 3): the rows of every partition's version 3.
-- From another database that attached the catalog as `lab`: FROM lab.history.head_scores WHERE version = 3.
CREATE MACRO table_version(table_name, version) AS TABLE
FROM query('FROM history."' || table_name || '" WHERE version = ' || version);
