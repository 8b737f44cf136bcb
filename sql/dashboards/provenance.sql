SELECT DISTINCT run_id, code_version, formula_version, model_version, corpus_version, sae_version
FROM feature_statistics
WHERE study = $study AND layer = $layer;
