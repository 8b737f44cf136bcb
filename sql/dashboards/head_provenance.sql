SELECT DISTINCT run_id, code_version, formula_version, model_version, corpus_version
FROM head_scores
WHERE study = $study;
