-- Which SAEs of a sweep are on the frontier: no other of the layer is sparser and recovers more?
SELECT
    f.study,
    f.layer,
    f.sae_variant,
    round(f.l0, 1) AS l0,
    round(f.ce_recovered, 3) AS ce_recovered,
    round(f.explained_variance, 3) AS explained_variance,
    round(f.dead_fraction, 3) AS dead_fraction
FROM sae_frontier AS f
WHERE NOT EXISTS (
    FROM sae_frontier AS o
    WHERE (o.study, o.layer) = (f.study, f.layer)
      AND o.l0 <= f.l0
      AND o.ce_spliced <= f.ce_spliced
      AND (o.l0 < f.l0 OR o.ce_spliced < f.ce_spliced)
)
ORDER BY f.study, f.layer, f.l0;
