-- formula: 2
-- rows: one
CREATE TABLE head_dashboards (
    study VARCHAR,
    path VARCHAR NOT NULL,
    url_path VARCHAR NOT NULL,
    n_head_pages INTEGER NOT NULL CHECK (n_head_pages >= 0),
    n_pages INTEGER NOT NULL CHECK (n_pages > 0),
    bytes BIGINT NOT NULL CHECK (bytes > 0),
    PRIMARY KEY (study),
    CHECK (n_head_pages < n_pages)
);
COMMENT ON TABLE head_dashboards IS 'One row per study: the published folder with a page per attention head and an index of them, self-contained HTML that opens without a server.';
COMMENT ON COLUMN head_dashboards.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_dashboards.path IS 'Folder of the pages under $MECHINTERP_HOME/dashboards; its index.html lists the heads';
COMMENT ON COLUMN head_dashboards.url_path IS 'Path of the index below the address that serves dashboards';
COMMENT ON COLUMN head_dashboards.n_head_pages IS 'Heads with a page';
COMMENT ON COLUMN head_dashboards.n_pages IS 'HTML files in the folder, the index included';
COMMENT ON COLUMN head_dashboards.bytes IS 'Size of all files in the folder, in bytes';
