-- formula: 1
-- below: layer < n_layers, head < n_heads, next_token_id < d_vocab
CREATE TABLE prompt_head_effects (
    study VARCHAR,
    prompt_set VARCHAR,
    prompt_number INTEGER CHECK (prompt_number >= 0),
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    next_token_id INTEGER NOT NULL CHECK (next_token_id >= 0),
    direct_logit_effect DOUBLE NOT NULL,
    ablation_kl DOUBLE CHECK (ablation_kl >= -1e-9),
    ablated_probability DOUBLE CHECK (ablated_probability BETWEEN 0 AND 1 + 1e-6),
    PRIMARY KEY (study, prompt_set, prompt_number, layer, head)
);
COMMENT ON TABLE prompt_head_effects IS 'One row per head and prompt of the study''s own: what it adds to the logit of the likeliest next token behind the last position, and what its zero ablation does. Raw weights. No rows where logits are not the unembedding of a stream that is a sum of writers.';
COMMENT ON COLUMN prompt_head_effects.study IS 'Study the row belongs to';
COMMENT ON COLUMN prompt_head_effects.prompt_set IS 'Name of the set that the prompt is in (section prompts of the study, or a file that it names; kept: kept in the explorer)';
COMMENT ON COLUMN prompt_head_effects.prompt_number IS 'Number of the prompt in its set, from 0';
COMMENT ON COLUMN prompt_head_effects.layer IS 'Layer of the head, from 0';
COMMENT ON COLUMN prompt_head_effects.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN prompt_head_effects.next_token_id IS 'Id of the token that is likeliest to come next';
COMMENT ON COLUMN prompt_head_effects.direct_logit_effect IS 'What the head''s output z W_O at the last position adds to the logit of next_token_id less the mean logit, the final norm''s scale being that of the run';
COMMENT ON COLUMN prompt_head_effects.ablation_kl IS 'KL(clean || ablated) of the next token behind the last position, nats, with z of the head zero at all positions; NULL without prompts.ablations';
COMMENT ON COLUMN prompt_head_effects.ablated_probability IS 'Probability of next_token_id with z of the head zero at all positions; NULL without prompts.ablations';
