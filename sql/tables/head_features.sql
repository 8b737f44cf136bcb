-- formula: 2
-- per: site
-- references: feature_head_attribution (study, layer, feature, head)
-- below: layer < n_layers, head < n_heads, feature < d_sae
CREATE TABLE head_features (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    head INTEGER CHECK (head >= 0),
    rank INTEGER NOT NULL CHECK (rank >= 0),
    alive_rank INTEGER CHECK (alive_rank >= 0),
    feature INTEGER CHECK (feature >= 0),
    attribution DOUBLE NOT NULL CHECK (attribution BETWEEN 0 AND 1.000001),
    is_alive BOOLEAN NOT NULL,
    n_active BIGINT NOT NULL CHECK (n_active >= 0),
    density DOUBLE CHECK (density BETWEEN 0 AND 1),
    frequent_tokens VARCHAR[] NOT NULL,
    frequent_tokens_share DOUBLE CHECK (frequent_tokens_share BETWEEN 0 AND 1),
    promoted_tokens VARCHAR[] NOT NULL,
    PRIMARY KEY (study, layer, head, feature),
    UNIQUE (study, layer, head, rank),
    CHECK (is_alive = (n_active > 0)),
    CHECK (is_alive = (alive_rank IS NOT NULL)),
    CHECK (alive_rank <= rank),
    CHECK (len(frequent_tokens) <= 3 AND len(promoted_tokens) <= 3)
);
COMMENT ON TABLE head_features IS 'One row per head and feature that it writes most (Kissane et al. 2024, section 4.1 and appendix J): the first ten of the head by head attribution among all features of its layer''s SAE, and the first ten among those that fired.';
COMMENT ON COLUMN head_features.study IS 'Study the row belongs to';
COMMENT ON COLUMN head_features.layer IS 'Layer of the head and of the SAE, from 0';
COMMENT ON COLUMN head_features.head IS 'Head within its layer, from 0';
COMMENT ON COLUMN head_features.rank IS 'Rank of the feature by attribution to this head among all features, 0 = largest; of equals the smaller feature first';
COMMENT ON COLUMN head_features.alive_rank IS 'Rank among the features that fired; NULL for a feature that never did, whose decoder row says nothing about the head';
COMMENT ON COLUMN head_features.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN head_features.attribution IS 'Share of this head in the norm of the decoder row (feature_head_attribution.attribution, K24 eq. 2), 0 to 1';
COMMENT ON COLUMN head_features.is_alive IS 'Whether the feature fired on the tokens of the feature pass';
COMMENT ON COLUMN head_features.n_active IS 'Tokens on which it fired (feature_statistics.n_active)';
COMMENT ON COLUMN head_features.density IS 'n_active over the tokens read (feature_statistics.density)';
COMMENT ON COLUMN head_features.frequent_tokens IS 'Up to three tokens at which it is active most often (feature_ngrams, ngram_size = 1); empty where it fired on no token twice';
COMMENT ON COLUMN head_features.frequent_tokens_share IS 'Share of its activity at these tokens, 0 to 1; NULL where there is none';
COMMENT ON COLUMN head_features.promoted_tokens IS 'The three tokens with its largest logit effect (feature_logit_effects)';
