-- formula: 1
-- per: site
-- rows: one per head for each feature
-- below: layer < n_layers, feature < d_sae, head < n_heads
CREATE TABLE feature_head_attribution (
    study VARCHAR,
    layer INTEGER CHECK (layer >= 0),
    feature INTEGER CHECK (feature >= 0),
    head INTEGER CHECK (head >= 0),
    attribution DOUBLE CHECK (attribution BETWEEN 0 AND 1.000001),
    PRIMARY KEY (study, layer, feature, head)
);
COMMENT ON TABLE feature_head_attribution IS 'One row per feature and head: which heads a feature writes with, by decoder weights (K24 eq. 2).';
COMMENT ON COLUMN feature_head_attribution.study IS 'Study the row belongs to';
COMMENT ON COLUMN feature_head_attribution.layer IS 'Layer whose z_cat the SAE reads';
COMMENT ON COLUMN feature_head_attribution.feature IS 'Index of the feature in the SAE';
COMMENT ON COLUMN feature_head_attribution.head IS 'Head of the layer';
COMMENT ON COLUMN feature_head_attribution.attribution IS '||d_ik|| / sum over heads j of ||d_ij||, d_ik the slice of decoder row i for head k (L2 norms, not squares), 0 to 1, sums to 1 over the heads of a feature; NULL where the decoder row is zero (K24 eq. 2)';
