-- formula: 1
-- per: site
-- references: attention_sae (study, layer)
-- below: layer < n_layers
CREATE TABLE sae_adoption (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    reading VARCHAR NOT NULL CHECK (reading IN ('raw', 'processed', 'permuted_heads', 'rescaled', 'largest_k')),
    n_largest INTEGER CHECK (n_largest > 0),
    adopted BOOLEAN NOT NULL,
    offset_norm DOUBLE NOT NULL CHECK (offset_norm >= 0),
    fvu DOUBLE CHECK (fvu >= 0),
    explained_variance DOUBLE CHECK (explained_variance <= 1.000001),
    l0 DOUBLE NOT NULL CHECK (l0 >= 0),
    n_tokens BIGINT NOT NULL CHECK (n_tokens > 0),
    UNIQUE (study, layer, reading, n_largest),
    CHECK ((reading = 'largest_k') = (n_largest IS NOT NULL)),
    CHECK (NOT adopted OR reading IN ('raw', 'processed'))
);
COMMENT ON TABLE sae_adoption IS 'One row per way of reading an SAE that was trained elsewhere, measured on raw z of training tokens of the study before it was adopted: the one adopted, and those that had to fit worse. Empty for SAEs trained in the study.';
COMMENT ON COLUMN sae_adoption.study IS 'Study the row belongs to';
COMMENT ON COLUMN sae_adoption.layer IS 'Layer of the SAE, from 0';
COMMENT ON COLUMN sae_adoption.reading IS 'raw: the weights as they are. processed: as trained on z of processed weights, b_dec raised by c = b_V + ln1.b W_V (absent where c = 0). permuted_heads: the adopted one on z with every head where the next one was, which must fit worse. rescaled: the weights as they are on z times sqrt(d_in) / mean ||z||, for a normalisation that the folder does not say. largest_k: the adopted one with the n_largest largest activations of a token alone, for a k or an architecture that is wrong';
COMMENT ON COLUMN sae_adoption.n_largest IS 'Activations kept of a token, of reading largest_k; NULL of others';
COMMENT ON COLUMN sae_adoption.adopted IS 'Whether the study''s SAE is this reading';
COMMENT ON COLUMN sae_adoption.offset_norm IS 'L2 norm of what was added to b_dec, ||c||; 0 for none';
COMMENT ON COLUMN sae_adoption.fvu IS 'Fraction of variance unexplained, as in sae_evaluation: it counts the constant error of an offset, which explained_variance does not. Decides adoption. NULL where z does not vary';
COMMENT ON COLUMN sae_adoption.explained_variance IS '1 - residual variance / total variance, as in sae_evaluation; NULL where z does not vary';
COMMENT ON COLUMN sae_adoption.l0 IS 'Mean number of active features per token';
COMMENT ON COLUMN sae_adoption.n_tokens IS 'Tokens behind the row';
