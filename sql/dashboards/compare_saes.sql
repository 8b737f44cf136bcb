-- Quality of the SAEs of two studies, by layer.
WITH rows AS (
    SELECT
        s.study,
        s.layer,
        s.architecture,
        s.d_sae,
        e.l0,
        e.explained_variance,
        e.ce_recovered,
        e.kl_recovered,
        e.dead_fraction
    FROM attention_sae AS s
    LEFT JOIN sae_evaluation AS e USING (study, layer)
    WHERE s.study IN ($study, $other)
)
SELECT
    layer,
    a.architecture AS architecture,
    b.architecture AS other_architecture,
    a.d_sae AS d_sae,
    b.d_sae AS other_d_sae,
    a.l0 AS l0,
    b.l0 AS other_l0,
    a.explained_variance AS explained_variance,
    b.explained_variance AS other_explained_variance,
    a.ce_recovered AS ce_recovered,
    b.ce_recovered AS other_ce_recovered,
    a.kl_recovered AS kl_recovered,
    b.kl_recovered AS other_kl_recovered,
    a.dead_fraction AS dead_fraction,
    b.dead_fraction AS other_dead_fraction
FROM (FROM rows WHERE study = $study) AS a
FULL JOIN (FROM rows WHERE study = $other) AS b USING (layer)
ORDER BY layer;
