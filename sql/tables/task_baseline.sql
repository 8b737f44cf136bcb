-- formula: 2
-- references: ioi_prompts (study, prompt) where task = 'ioi'
-- references: task_prompts (study, task, prompt) where task <> 'ioi'
-- below: top_token_id < d_vocab
CREATE TABLE task_baseline (
    study VARCHAR NOT NULL,
    task VARCHAR NOT NULL,
    prompt BIGINT,
    template INTEGER CHECK (template >= 0),
    variant VARCHAR CHECK (variant IN ('base', 'corrupt')),
    loss DOUBLE CHECK (loss >= -1e-6),
    prob DOUBLE CHECK (prob BETWEEN 0 AND 1.000001),
    answer_rank INTEGER CHECK (answer_rank >= 1),
    logit_diff DOUBLE,
    is_top1 BOOLEAN,
    top_token_id INTEGER CHECK (top_token_id >= 0),
    skipped VARCHAR,
    UNIQUE (study, task, prompt),
    CHECK ((prompt IS NULL) = (skipped IS NOT NULL)),
    CHECK (is_top1 = (answer_rank = 1))
);
COMMENT ON TABLE task_baseline IS 'Answer of the unmodified model (raw weights) at END, one row per prompt of task_prompts and per base prompt of ioi_prompts (task ioi), and one row without a prompt for each task that the tokenizer cannot express. Answers are read from one position: of an answer of several tokens, which only users'' tasks have, the first is scored.';
COMMENT ON COLUMN task_baseline.study IS 'Study the row belongs to';
COMMENT ON COLUMN task_baseline.task IS 'Task, as in task_prompts, or ioi';
COMMENT ON COLUMN task_baseline.prompt IS 'Prompt number within the task, as in task_prompts or ioi_prompts; NULL: the task was left out';
COMMENT ON COLUMN task_baseline.template IS 'Index of the wording within the task';
COMMENT ON COLUMN task_baseline.variant IS 'base or corrupt, as in task_prompts; of ioi_prompts base alone';
COMMENT ON COLUMN task_baseline.loss IS '-log of the probability of all answer tokens together at END, in nats; like prob, answer_rank and is_top1 NULL for prompts without answers';
COMMENT ON COLUMN task_baseline.prob IS 'Probability of all answer tokens together over the whole vocabulary, 0 to 1';
COMMENT ON COLUMN task_baseline.answer_rank IS '1 + number of tokens that are no answer and have a larger logit than the best answer token';
COMMENT ON COLUMN task_baseline.logit_diff IS 'Mean logit of the answers - mean logit of the wrong tokens at END, in nats; NULL without wrong tokens';
COMMENT ON COLUMN task_baseline.is_top1 IS 'Whether an answer is the most likely token of the whole vocabulary: answer_rank = 1. Its mean is top-1 accuracy; stricter than logit_diff > 0';
COMMENT ON COLUMN task_baseline.top_token_id IS 'Token id of the largest logit at END';
COMMENT ON COLUMN task_baseline.skipped IS 'Why the task was left out; NULL for tasks with prompts';
