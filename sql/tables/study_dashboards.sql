-- formula: 2
-- rows: one
CREATE TABLE study_dashboards (
    study VARCHAR,
    path VARCHAR NOT NULL,
    url_path VARCHAR NOT NULL,
    n_layer_pages INTEGER NOT NULL CHECK (n_layer_pages >= 0),
    n_feature_pages BIGINT NOT NULL CHECK (n_feature_pages >= 0),
    PRIMARY KEY (study)
);
COMMENT ON TABLE study_dashboards IS 'One row per study: the page that links the dashboards of all its layers and shows how good their SAEs are.';
COMMENT ON COLUMN study_dashboards.study IS 'Study the row belongs to';
COMMENT ON COLUMN study_dashboards.path IS 'Folder of the page under $MECHINTERP_HOME/dashboards';
COMMENT ON COLUMN study_dashboards.url_path IS 'Path of the page below the address that serves dashboards';
COMMENT ON COLUMN study_dashboards.n_layer_pages IS 'Layers with a dashboard';
COMMENT ON COLUMN study_dashboards.n_feature_pages IS 'Features with a page of their own, over all layers';
