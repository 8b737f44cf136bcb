-- From which model, corpus and SAE, and by which runs, did each layer's dashboard come?
SELECT
    d.study,
    d.layer,
    d.n_feature_pages,
    m.weights_source AS model,
    d.model_version,
    s.weights_hash AS sae,
    left(d.corpus_version, 16) AS corpus,
    d.run_id AS dashboard_run,
    s.run_id AS sae_run
FROM feature_dashboards AS d
JOIN language_model AS m USING (study)
JOIN attention_sae AS s USING (study, layer)
ORDER BY d.study, d.layer;
