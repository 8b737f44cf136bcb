-- formula: 3
-- rows: one per row of ioi_prompts
-- references: ioi_prompts (study, prompt)
-- below: top_token_id < d_vocab
CREATE TABLE ioi_baseline (
    study VARCHAR,
    prompt BIGINT,
    bos_token VARCHAR,
    logit_io DOUBLE NOT NULL,
    logit_s DOUBLE NOT NULL,
    logit_diff DOUBLE NOT NULL,
    prob_io DOUBLE NOT NULL CHECK (prob_io BETWEEN 0 AND 1.000001),
    prob_s DOUBLE NOT NULL CHECK (prob_s BETWEEN 0 AND 1.000001),
    prefers_io BOOLEAN NOT NULL,
    top_token_id INTEGER NOT NULL CHECK (top_token_id >= 0),
    PRIMARY KEY (study, prompt),
    CHECK (abs(logit_io - logit_s - logit_diff) <= 1e-4),
    CHECK (prefers_io = (logit_diff > 0))
);
COMMENT ON TABLE ioi_baseline IS 'Answer of the unmodified model (raw weights) at END, one row per IOI prompt. Names are those of the row''s own text: in variant S2_to_IO a negative logit_diff is the right answer, in ABC there is none. Reference, GPT-2 small: mean logit_diff 3.56 on 100k prompts of Wang et al. 2022; 3.011 with 97.7% positive on the 256 prompts of Franco & Crovella 2024.';
COMMENT ON COLUMN ioi_baseline.study IS 'Study the row belongs to';
COMMENT ON COLUMN ioi_baseline.prompt IS 'Prompt number, as in ioi_prompts';
COMMENT ON COLUMN ioi_baseline.bos_token IS 'Token that the prompt begins with (model.bos); NULL where it begins with text';
COMMENT ON COLUMN ioi_baseline.logit_io IS 'Logit of io_token_id at END, in nats up to a constant per prompt';
COMMENT ON COLUMN ioi_baseline.logit_s IS 'Logit of s_token_id at END, in nats up to the same constant';
COMMENT ON COLUMN ioi_baseline.logit_diff IS 'Mean logit of the answers - mean logit of the wrong tokens at END, in nats; here logit_io - logit_s';
COMMENT ON COLUMN ioi_baseline.prob_io IS 'Probability of io_token_id at END over the whole vocabulary, 0 to 1';
COMMENT ON COLUMN ioi_baseline.prob_s IS 'Probability of s_token_id at END over the whole vocabulary, 0 to 1';
COMMENT ON COLUMN ioi_baseline.prefers_io IS 'Whether logit_diff > 0. Its mean is the accuracy that IOI papers report; weaker than top-1 accuracy (task_baseline.is_top1)';
COMMENT ON COLUMN ioi_baseline.top_token_id IS 'Token id of the largest logit at END';
