-- formula: 4
CREATE TABLE trace_summary (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    trace_rule VARCHAR NOT NULL CHECK (trace_rule IN ('fc24', 'fc24_near', 'fc24_negative', 'fc24_all_slices', 'relative', 'relative_near', 'relative_negative', 'relative_all_slices', 'fc24_code')),
    counted VARCHAR NOT NULL CHECK (counted IN ('prompts', 'paths', 'published')),
    min_share DOUBLE NOT NULL CHECK (min_share >= 0),
    min_count DOUBLE NOT NULL CHECK (min_count >= 1),
    n_prompts BIGINT NOT NULL CHECK (n_prompts >= 0),
    n_attention_edges BIGINT NOT NULL CHECK (n_attention_edges >= 0),
    n_communication_edges BIGINT NOT NULL CHECK (n_communication_edges >= 0),
    n_nodes BIGINT NOT NULL CHECK (n_nodes >= 0),
    n_kept_heads BIGINT NOT NULL CHECK (n_kept_heads >= 0),
    median_destination_head_share DOUBLE CHECK (median_destination_head_share BETWEEN 0 AND 1.000001),
    median_source_head_share DOUBLE CHECK (median_source_head_share BETWEEN 0 AND 1.000001),
    head_list VARCHAR,
    n_listed BIGINT CHECK (n_listed >= 0),
    n_reachable BIGINT CHECK (n_reachable >= 0),
    n_shared BIGINT CHECK (n_shared >= 0),
    precision DOUBLE CHECK (precision BETWEEN 0 AND 1),
    recall DOUBLE CHECK (recall BETWEEN 0 AND 1),
    random_precision DOUBLE CHECK (random_precision BETWEEN 0 AND 1),
    random_recall DOUBLE CHECK (random_recall BETWEEN 0 AND 1),
    p_value DOUBLE CHECK (p_value BETWEEN 0 AND 1.000001),
    UNIQUE (study, task, trace_rule, counted, min_share, head_list),
    CHECK (n_kept_heads <= n_nodes),
    CHECK (n_shared <= n_reachable AND n_shared <= n_kept_heads),
    CHECK (n_reachable <= n_listed),
    CHECK (counted <> 'published' OR trace_rule = 'fc24_code'),
    CHECK ((head_list IS NULL) = (n_listed IS NULL))
);
COMMENT ON TABLE trace_summary IS 'Size of the traced circuit under several rules and filters, and its agreement with lists of heads: published circuits of the model and lists of the study. One row per rule, kind of count, filter and reference list. Sharing heads with a published circuit is no measure of faithfulness.';
COMMENT ON COLUMN trace_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN trace_summary.task IS 'Task whose prompts were traced: ioi, or a task of task_prompts';
COMMENT ON COLUMN trace_summary.trace_rule IS 'Rule of the trace, one for all its pairs. fc24 and relative: as in trace_edges; with _near: from root pairs whose attention lies between ioi.near_threshold and the firing threshold; _negative: heads that contribute against S; _all_slices: every slice in place of S; fc24_code: the published code''s, which fires as fc24, appends a 1 to every head''s output, keeps the largest head where the heads'' sum is not positive and merges the two sides';
COMMENT ON COLUMN trace_summary.counted IS 'What the filter counts: prompts (distinct), paths (path_multiplicity), or published: the edges of trace_published by published_count, whose ends are the heads (FC24''s own comparison)';
COMMENT ON COLUMN trace_summary.min_share IS 'Filter: nodes and edges whose count is at least this share of the prompts; 0.664 is 170 of 256, the published filter';
COMMENT ON COLUMN trace_summary.min_count IS 'The same as a count, at least 1';
COMMENT ON COLUMN trace_summary.n_prompts IS 'Number of prompts traced';
COMMENT ON COLUMN trace_summary.n_attention_edges IS 'Kept rows of trace_nodes with a source: (head, destination role, source role); published: kept attention edges of trace_published';
COMMENT ON COLUMN trace_summary.n_communication_edges IS 'Kept rows of trace_variants; published: kept communication edges of trace_published';
COMMENT ON COLUMN trace_summary.n_nodes IS 'Distinct (head, role of the position at which it acts) among kept nodes; published: heads, and heads with a written role, at the ends of kept edges';
COMMENT ON COLUMN trace_summary.n_kept_heads IS 'Distinct heads among kept nodes; published: at the ends of kept edges';
COMMENT ON COLUMN trace_summary.median_destination_head_share IS 'Median over all traced pairs of the rule of attention_slices.destination_head_share: how much of what is read at destinations heads wrote at all (fc24_code: with the constant that it adds to every head)';
COMMENT ON COLUMN trace_summary.median_source_head_share IS 'The same on the source side';
COMMENT ON COLUMN trace_summary.head_list IS 'Name of the list of heads; NULL where there is none';
COMMENT ON COLUMN trace_summary.n_listed IS 'Heads in the list';
COMMENT ON COLUMN trace_summary.n_reachable IS 'Those of them that the trace can find: roots, and heads of layers before the last root''s';
COMMENT ON COLUMN trace_summary.n_shared IS 'Kept heads that are in the list';
COMMENT ON COLUMN trace_summary.precision IS 'n_shared / n_kept_heads; NULL where no head is kept';
COMMENT ON COLUMN trace_summary.recall IS 'n_shared / n_reachable; NULL where none is reachable';
COMMENT ON COLUMN trace_summary.random_precision IS 'Mean precision of random sets of reachable heads: n_reachable / number of reachable heads of the model';
COMMENT ON COLUMN trace_summary.random_recall IS 'Mean recall of random sets of n_kept_heads reachable heads';
COMMENT ON COLUMN trace_summary.p_value IS 'Probability that a random set of n_kept_heads reachable heads shares at least n_shared with the list (hypergeometric)';
