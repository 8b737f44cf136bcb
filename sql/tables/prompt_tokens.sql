-- formula: 2
-- below: token_id < d_vocab, next_token_id < d_vocab
CREATE TABLE prompt_tokens (
    study VARCHAR,
    prompt_set VARCHAR,
    prompt_number INTEGER CHECK (prompt_number >= 0),
    position INTEGER CHECK (position >= 0),
    token_id INTEGER NOT NULL CHECK (token_id >= 0),
    token VARCHAR NOT NULL,
    in_statistics BOOLEAN NOT NULL,
    log_probability DOUBLE CHECK (log_probability <= 0),
    likelier_tokens INTEGER CHECK (likelier_tokens >= 0),
    next_token_id INTEGER NOT NULL CHECK (next_token_id >= 0),
    next_token VARCHAR NOT NULL,
    next_probability DOUBLE NOT NULL CHECK (next_probability BETWEEN 0 AND 1 + 1e-6),
    PRIMARY KEY (study, prompt_set, prompt_number, position),
    CHECK ((position = 0) = (log_probability IS NULL)),
    CHECK ((position = 0) = (likelier_tokens IS NULL))
);
COMMENT ON TABLE prompt_tokens IS 'One row per token of a prompt of the study''s own (section prompts), and what the model said of it. No rows where the study has no prompts. The explorer shows the same of any prompt.';
COMMENT ON COLUMN prompt_tokens.study IS 'Study the row belongs to';
COMMENT ON COLUMN prompt_tokens.prompt_set IS 'Name of the set that the prompt is in (section prompts of the study, or a file that it names; kept: kept in the explorer)';
COMMENT ON COLUMN prompt_tokens.prompt_number IS 'Number of the prompt in its set, from 0';
COMMENT ON COLUMN prompt_tokens.position IS 'Position of the token in the prompt, from 0 (BOS where prompts begin with it)';
COMMENT ON COLUMN prompt_tokens.token_id IS 'Id of the token';
COMMENT ON COLUMN prompt_tokens.token IS 'Text of the token';
COMMENT ON COLUMN prompt_tokens.in_statistics IS 'Whether SAEs are trained on such a token: neither position 0 nor BOS nor what the study excludes; other positions have no rows in prompt_features';
COMMENT ON COLUMN prompt_tokens.log_probability IS 'ln p of this token given those before it, nats; NULL at position 0';
COMMENT ON COLUMN prompt_tokens.likelier_tokens IS 'How many tokens the model thought likelier than this one; NULL at position 0';
COMMENT ON COLUMN prompt_tokens.next_token_id IS 'Id of the token that is likeliest to come next';
COMMENT ON COLUMN prompt_tokens.next_token IS 'Text of that token';
COMMENT ON COLUMN prompt_tokens.next_probability IS 'Its probability';
