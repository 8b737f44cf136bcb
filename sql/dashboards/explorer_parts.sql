-- The tree of the root: its parts, then theirs, as far as prompt_attributions keeps them.
SELECT
    node, parent, depth, node_kind, at_layer, at_head, at_feature, at_position, token, path_contribution
FROM prompt_attributions
WHERE
    study = $study AND prompt_set = $prompt_set AND prompt_number = $prompt_number
    AND tree = $tree
ORDER BY node;
