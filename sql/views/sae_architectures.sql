-- Written by mechinterp_assets/app/generated_views.py from the files of mechinterp_assets/sae/architectures; do not edit.
CREATE VIEW sae_architectures AS
SELECT architecture, definition, sparsity_setting, required_settings, dead_features, sae_lens_name, paper
FROM (
    VALUES
        ('batchtopk', 'The k n largest pre-activations of a batch of n rows, through ReLU; squared error and aux-k. Trained: what exceeds one threshold, the mean smallest value kept in a batch', 'k', NULL, 'aux-k', 'jumprelu', 'Bussmann et al. 2024, arXiv 2412.06410'),
        ('gated', 'ReLU of a magnitude path where the pre-activation of a gate with the same direction is above 0; squared error, an L1 penalty on the gate and the gate''s own squared error', 'l1_coefficient', NULL, 'resampling', 'gated', 'Rajamanoharan et al. 2024a, arXiv 2404.16014'),
        ('jumprelu', 'Pre-activations above a learnt threshold per feature; squared error and a penalty on the number of active features', 'l0_coefficient', NULL, 'resampling', 'jumprelu', 'Rajamanoharan et al. 2024b, arXiv 2407.14435'),
        ('matryoshka', 'As batchtopk; every prefix of the features in group_sizes reconstructs by itself', 'k', 'group_sizes', 'aux-k', 'jumprelu', 'Bussmann et al. 2025, arXiv 2503.17547'),
        ('standard', 'ReLU of every pre-activation; squared error and an L1 penalty on activations', 'l1_coefficient', NULL, 'resampling', 'standard', 'Bricken et al. 2023; K24'),
        ('topk', 'The k largest pre-activations of a row, through ReLU; squared error and aux-k', 'k', NULL, 'aux-k', 'topk', 'Gao et al. 2024, arXiv 2406.04093')
) AS declared (architecture, definition, sparsity_setting, required_settings, dead_features, sae_lens_name, paper);
COMMENT ON VIEW sae_architectures IS 'One row per SAE architecture that can be trained: its definition.';
COMMENT ON COLUMN sae_architectures.architecture IS 'Name of the SAE architecture, as in attention_sae';
COMMENT ON COLUMN sae_architectures.definition IS 'Which features are active, and the loss; decoder rows have unit norm';
COMMENT ON COLUMN sae_architectures.sparsity_setting IS 'Setting that decides how sparse the SAE becomes';
COMMENT ON COLUMN sae_architectures.required_settings IS 'Other settings that must be given; NULL: none';
COMMENT ON COLUMN sae_architectures.dead_features IS 'How features that never fire get a gradient: aux-k (Gao et al. 2024, A.2) or resampling (Bricken et al. 2023); NULL: not at all';
COMMENT ON COLUMN sae_architectures.sae_lens_name IS 'What SAELens calls such an SAE in cfg.json';
COMMENT ON COLUMN sae_architectures.paper IS 'Where the architecture is from';
