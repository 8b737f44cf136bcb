-- formula: 3
CREATE TABLE task_prompts (
    study VARCHAR,
    task VARCHAR,
    prompt BIGINT CHECK (prompt >= 0),
    pair_id BIGINT NOT NULL CHECK (pair_id >= 0),
    template INTEGER NOT NULL CHECK (template >= 0),
    variant VARCHAR NOT NULL CHECK (variant IN ('base', 'corrupt')),
    text VARCHAR NOT NULL,
    token_ids INTEGER[] NOT NULL,
    n_tokens INTEGER NOT NULL,
    roles VARCHAR[] NOT NULL,
    positions INTEGER[] NOT NULL,
    answer_token_ids INTEGER[] NOT NULL,
    wrong_token_ids INTEGER[] NOT NULL,
    PRIMARY KEY (study, task, prompt),
    CHECK (n_tokens = len(token_ids)),
    CHECK (list_min(token_ids) >= 0),
    CHECK (len(roles) = len(positions)),
    CHECK (list_contains(roles, 'END')),
    CHECK (list_min(positions) >= 0 AND list_max(positions) = n_tokens - 1)
);
COMMENT ON TABLE task_prompts IS 'Prompts, with answers where the task has them, one form for every task but IOI, whose table is ioi_prompts. One row per prompt; base prompts and what was varied from them share pair_id. Positions count tokens from 0 with BOS at 0 and come from assembly. Logit difference = mean logit of the answers - mean logit of the wrong tokens, behind the last token.';
COMMENT ON COLUMN task_prompts.study IS 'Study the row belongs to';
COMMENT ON COLUMN task_prompts.task IS 'Task. Families: greater_than (end year of a span after its start; Hanna et al. 2023, arXiv 2305.00586), gendered_pronoun (question tag after a name; Mathwin et al. 2023), colored_objects (color of one of three objects; Merullo et al. 2024, arXiv 2310.08744). Further tasks: digit_copying and url_string (Kissane et al. 2024, arXiv 2406.17759, Fig. 3; url_string: a string behind an address, with nothing to copy), url_completion (an address that was shown before; this project''s), successor_lists, induction (repeated random tokens; Olsson et al. 2022), and the user''s own (tasks.own)';
COMMENT ON COLUMN task_prompts.prompt IS 'Number of the prompt, unique within study and task';
COMMENT ON COLUMN task_prompts.pair_id IS 'Number of the base prompt that this prompt is or was varied from, within the task';
COMMENT ON COLUMN task_prompts.template IS 'Index of the wording within the task';
COMMENT ON COLUMN task_prompts.variant IS 'base; corrupt, a counterfactual of equal length: greater_than an early start year, gendered_pronoun a name of the other gender, colored_objects a question about another object, digit_copying another total, url_completion another word in the address, url_string words in place of the address and the same answer, successor_lists a list of the same kind from another start, induction another token to be repeated';
COMMENT ON COLUMN task_prompts.text IS 'The prompt as text, without BOS';
COMMENT ON COLUMN task_prompts.token_ids IS 'Token ids, BOS first; equal to the tokenizer''s ids of text after BOS, except in induction, whose tokens are random';
COMMENT ON COLUMN task_prompts.n_tokens IS 'Number of tokens, BOS included';
COMMENT ON COLUMN task_prompts.roles IS 'Roles of positions: END (the last token, behind which the answer is read) and the task''s own. greater_than: NOUN, CENTURY, YEAR, UNIT; gendered_pronoun: NAME, VERB, PUNCT, TAG; colored_objects: COLOR, OBJECT (of the object asked about), COLOR_B, OBJECT_B, COLOR_C, OBJECT_C (the others), QUERY; digit_copying: FIRST_TOTAL, LAST_TOTAL, NUMBER; url_completion: ANSWER; url_string: ADDRESS, SLASH; successor_lists: FIRST, LAST; induction: SOURCE, ANSWER; the user''s own: none but END. The first listed names a position that has two';
COMMENT ON COLUMN task_prompts.positions IS 'Position of each role, in the order of roles: that of its first token';
COMMENT ON COLUMN task_prompts.answer_token_ids IS 'Tokens that are right answers to this row''s own text; empty: a task of the user''s without answers, for which KL alone is defined';
COMMENT ON COLUMN task_prompts.wrong_token_ids IS 'Tokens that are wrong answers to this row''s own text; empty: of what the answer is measured by only its loss and probability are defined';
