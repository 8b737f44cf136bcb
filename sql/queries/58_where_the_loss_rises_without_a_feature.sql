-- Where does the loss rise when a feature is removed from text: where its token is due (K24, E.3), or elsewhere?
SELECT
    l.layer,
    l.feature,
    v.token AS promoted_token,
    l.chosen_by,
    l.n_sequences,
    round(sum(increase_share) FILTER (WHERE position_class = 'due_by_induction'), 3)
        AS share_due_by_induction,
    round(sum(increase_share) FILTER (WHERE position_class <> 'other'), 3) AS share_due,
    round(max(l.ci_low) FILTER (WHERE position_class = 'other'), 3) AS elsewhere_at_least,
    round(max(l.ci_high) FILTER (WHERE position_class = 'other'), 3) AS elsewhere_at_most,
    round(sum(n) FILTER (WHERE position_class <> 'other') / sum(n), 4) AS share_of_tokens_due,
    round(1000 * (sum(loss_increase) - sum(loss_decrease)) / sum(n), 3) AS mean_change_millinats,
    max(forward_passes) AS forward_passes
FROM feature_loss AS l
JOIN vocabulary AS v ON v.study = l.study AND v.token_id = l.promoted_token_id
WHERE l.study = coalesce(getvariable('study'), 'organism')
GROUP BY ALL
ORDER BY share_due DESC NULLS LAST, l.layer, l.feature;
