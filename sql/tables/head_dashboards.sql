-- formula: 2
CREATE TABLE head_dashboards (
    study VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    url_path VARCHAR NOT NULL,
    n_head_pages INTEGER NOT NULL,
    n_pages INTEGER NOT NULL,
    bytes BIGINT NOT NULL
);
COMMENT ON TABLE head_dashboards IS 'One row per study: the published folder with a page per attention head and an index of them, self-contained HTML that opens without a server.';
COMMENT ON COLUMN head_dashboards.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_dashboards.path IS 'Folder of the pages under $MECHINTERP_HOME/dashboards; its index.html lists the heads';
COMMENT ON COLUMN head_dashboards.url_path IS 'Path of the index below the address that serves dashboards';
COMMENT ON COLUMN head_dashboards.n_head_pages IS 'Heads with a page';
COMMENT ON COLUMN head_dashboards.n_pages IS 'HTML files in the folder, the index included';
COMMENT ON COLUMN head_dashboards.bytes IS 'Size of all files in the folder, in bytes';
