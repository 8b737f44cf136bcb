-- How good is each layer's SAE, and how much of the corpus was it trained on?
SELECT
    e.study,
    e.layer,
    s.architecture,
    s.d_sae,
    s.training_tokens,
    round(e.l0, 1) AS l0,
    round(e.explained_variance, 3) AS explained_variance,
    round(e.ce_recovered, 3) AS ce_recovered,
    round(e.kl_recovered, 3) AS kl_recovered,
    round(e.dead_fraction, 3) AS dead_fraction
FROM sae_evaluation AS e
JOIN attention_sae AS s USING (study, layer)
ORDER BY e.study, e.layer;
