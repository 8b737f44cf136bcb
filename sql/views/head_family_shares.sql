CREATE VIEW head_family_shares AS
WITH top AS (
    SELECT study, layer, head, feature, count(*) OVER (PARTITION BY study, layer, head) AS n
    FROM head_features
    WHERE alive_rank < 10
)
SELECT
    top.study,
    top.layer,
    top.head,
    l.family,
    top.n,
    count(*) AS n_with_family,
    count(*) / top.n AS family_share,
    count(*) / top.n >= 0.8 AS is_shared_by_8_of_10
FROM top
JOIN feature_family_labels AS l
    ON l.study = top.study AND l.layer = top.layer AND l.feature = top.feature
GROUP BY top.study, top.layer, top.head, l.family, top.n;
COMMENT ON VIEW head_family_shares IS 'One row per head and family that some of its top features belong to: what the features that a head writes most have in common (K24 App. M names what 8 of the top 10 share, read by a person; families here are feature_family_labels). A feature may belong to several families or none.';
COMMENT ON COLUMN head_family_shares.family IS 'Family: the label';
COMMENT ON COLUMN head_family_shares.n IS 'Top features of the head, the first ten of head_features that ever fired';
COMMENT ON COLUMN head_family_shares.n_with_family IS 'Those of them that belong to the family';
COMMENT ON COLUMN head_family_shares.family_share IS 'n_with_family / n';
COMMENT ON COLUMN head_family_shares.is_shared_by_8_of_10 IS 'Whether at least 8 of 10 top features belong to it';
