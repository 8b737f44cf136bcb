-- formula: 2
-- per: site
-- rows: one
-- below: layer < n_layers
CREATE TABLE feature_dashboards (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    path VARCHAR NOT NULL,
    url_path VARCHAR NOT NULL,
    n_feature_pages INTEGER NOT NULL CHECK (n_feature_pages >= 0),
    n_pages INTEGER NOT NULL CHECK (n_pages > 0),
    bytes BIGINT NOT NULL CHECK (bytes > 0),
    PRIMARY KEY (study, layer),
    CHECK (n_feature_pages < n_pages)
);
COMMENT ON TABLE feature_dashboards IS 'One row per study and layer: the published folder of feature pages, self-contained HTML that opens without a server.';
COMMENT ON COLUMN feature_dashboards.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_dashboards.layer IS 'Layer whose features the pages show';
COMMENT ON COLUMN feature_dashboards.path IS 'Folder of the pages; its index.html lists the features';
COMMENT ON COLUMN feature_dashboards.url_path IS 'Path of the layer''s index below the address that serves dashboards';
COMMENT ON COLUMN feature_dashboards.n_feature_pages IS 'Features with a page of their own';
COMMENT ON COLUMN feature_dashboards.n_pages IS 'HTML files in the folder, the index included';
COMMENT ON COLUMN feature_dashboards.bytes IS 'Size of all files in the folder, in bytes';
