-- formula: 2
-- rows: one
CREATE TABLE experiment_dashboards (
    study VARCHAR,
    path VARCHAR NOT NULL,
    url_path VARCHAR NOT NULL,
    n_experiments INTEGER NOT NULL CHECK (n_experiments >= 0),
    n_pictures INTEGER NOT NULL CHECK (n_pictures >= 0),
    bytes BIGINT NOT NULL CHECK (bytes > 0),
    PRIMARY KEY (study)
);
COMMENT ON TABLE experiment_dashboards IS 'One row per study: the published page of its experiments, self-contained HTML that opens without a server. Published experiments (intervention_experiments) with what their interventions did, faithfulness over circuit size, heads shared between tasks, induction by prefix length; each picture with its SQL and numbers.';
COMMENT ON COLUMN experiment_dashboards.study IS 'Study the row belongs to';
COMMENT ON COLUMN experiment_dashboards.path IS 'Folder of the page under $MECHINTERP_HOME/dashboards';
COMMENT ON COLUMN experiment_dashboards.url_path IS 'Path of the page below the address that serves dashboards';
COMMENT ON COLUMN experiment_dashboards.n_experiments IS 'Published experiments with at least one intervention';
COMMENT ON COLUMN experiment_dashboards.n_pictures IS 'Pictures on the page';
COMMENT ON COLUMN experiment_dashboards.bytes IS 'Size of the page, in bytes';
