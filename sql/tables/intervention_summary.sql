-- formula: 1
CREATE TABLE intervention_summary (
    study VARCHAR,
    intervention VARCHAR,
    kind VARCHAR,
    mode VARCHAR,
    site VARCHAR,
    layer INTEGER,
    head INTEGER,
    feature INTEGER,
    position_role VARCHAR,
    upstream_layer INTEGER,
    upstream_head INTEGER,
    destination_role VARCHAR,
    source_role VARCHAR,
    side VARCHAR,
    receiver VARCHAR,
    scope VARCHAR,
    via_mlp BOOLEAN,
    error_kept BOOLEAN,
    is_control BOOLEAN,
    alpha DOUBLE,
    seed BIGINT,
    metric VARCHAR,
    n BIGINT,
    mean_clean DOUBLE,
    mean_patched DOUBLE,
    mean_effect DOUBLE,
    sd_effect DOUBLE,
    ci_low DOUBLE,
    ci_high DOUBLE,
    mean_n_slices DOUBLE,
    mean_cosine DOUBLE,
    mean_norm_ratio DOUBLE,
    n_controls BIGINT,
    control_n BIGINT,
    control_mean_effect DOUBLE,
    control_ci_low DOUBLE,
    control_ci_high DOUBLE
);
COMMENT ON TABLE intervention_summary IS 'One row per intervention and metric, over the prompts it applies to. Effect = patched - clean per prompt. Controls are not rows of their own but the control_ columns of the intervention they belong to.';
COMMENT ON COLUMN intervention_summary.study IS 'Study the row belongs to';
COMMENT ON COLUMN intervention_summary.intervention IS 'Stable identifier of what was done; the same in every run and study';
COMMENT ON COLUMN intervention_summary.kind IS 'head_ablation: z of a head. edge: what one head writes into the slices of Omega through which another reads it (Franco & Crovella 2024, section 5). set: several interventions in one forward pass, listed in intervention_sets';
COMMENT ON COLUMN intervention_summary.mode IS 'head_ablation: zero (z becomes (1 - alpha) z) or mean (z + alpha (mean - z), the mean over ABC prompts of the same template, name order and role positions). edge: ablate (x - alpha h) or boost (x + alpha h). NULL for a set';
COMMENT ON COLUMN intervention_summary.site IS 'What is edited: z (a head''s attention-weighted values), attn_out (a layer''s attention output), q_input, k_input or qkv_input (one head''s normalised input as its query, its key or all three read it), set';
COMMENT ON COLUMN intervention_summary.layer IS 'Layer of the ablated head; for an edge that of the downstream head, which reads';
COMMENT ON COLUMN intervention_summary.head IS 'The ablated head; for an edge the downstream head';
COMMENT ON COLUMN intervention_summary.feature IS 'SAE feature; NULL for heads and edges';
COMMENT ON COLUMN intervention_summary.position_role IS 'Role of the edited position (END, S2, IO, ...), or all';
COMMENT ON COLUMN intervention_summary.upstream_layer IS 'Edge: layer of the head that writes';
COMMENT ON COLUMN intervention_summary.upstream_head IS 'Edge: the head that writes';
COMMENT ON COLUMN intervention_summary.destination_role IS 'Edge: role of the downstream pair''s destination (query)';
COMMENT ON COLUMN intervention_summary.source_role IS 'Edge: role of the downstream pair''s source (key)';
COMMENT ON COLUMN intervention_summary.side IS 'Edge: whether the upstream head writes at the pair''s destination or at its source';
COMMENT ON COLUMN intervention_summary.receiver IS 'Local edge edits: the downstream weights that see the edit, q, k or qkv; NULL for global edits, which every later reader sees';
COMMENT ON COLUMN intervention_summary.scope IS 'Edge: local (only the downstream head''s normalised input changes, by h / s) or global (the upstream head''s attention output changes by h)';
COMMENT ON COLUMN intervention_summary.via_mlp IS 'Whether MLPs after the edit were computed anew; always true for heads and edges';
COMMENT ON COLUMN intervention_summary.error_kept IS 'SAE interventions: whether the reconstruction error was kept; NULL for heads and edges';
COMMENT ON COLUMN intervention_summary.is_control IS 'Edge: as many slices as the edge has, drawn at random from the others';
COMMENT ON COLUMN intervention_summary.alpha IS 'Strength of the edit: 0 changes nothing, 1 is the full edit; NULL for a set';
COMMENT ON COLUMN intervention_summary.seed IS 'Seed of a control''s draw; NULL otherwise';
COMMENT ON COLUMN intervention_summary.metric IS 'logit_diff, kl, loss, prob or attn_score, as in intervention_results';
COMMENT ON COLUMN intervention_summary.n IS 'Prompts';
COMMENT ON COLUMN intervention_summary.mean_clean IS 'Mean of the metric in the unedited runs';
COMMENT ON COLUMN intervention_summary.mean_patched IS 'Mean of the metric in the edited runs';
COMMENT ON COLUMN intervention_summary.mean_effect IS 'Mean over prompts of patched - clean; negative logit_diff and prob, positive loss and kl mean worse at the task';
COMMENT ON COLUMN intervention_summary.sd_effect IS 'Standard deviation of the effect over prompts (n - 1); NULL for a single prompt';
COMMENT ON COLUMN intervention_summary.ci_low IS 'Lower end of the 95% percentile bootstrap interval of mean_effect over prompts; NULL for a single prompt';
COMMENT ON COLUMN intervention_summary.ci_high IS 'Upper end of that interval';
COMMENT ON COLUMN intervention_summary.mean_n_slices IS 'Edge: mean number of slices projected on';
COMMENT ON COLUMN intervention_summary.mean_cosine IS 'Mean cosine of the residual stream at the edited site with and without the edit';
COMMENT ON COLUMN intervention_summary.mean_norm_ratio IS 'Mean ratio of its norm with and without the edit';
COMMENT ON COLUMN intervention_summary.n_controls IS 'Controls (seeds) run; 0: none';
COMMENT ON COLUMN intervention_summary.control_n IS 'Prompts with a control: those where the complement of S has at least as many slices as S';
COMMENT ON COLUMN intervention_summary.control_mean_effect IS 'Mean over these prompts of the controls'' effect, averaged over seeds first; NULL without controls';
COMMENT ON COLUMN intervention_summary.control_ci_low IS 'Lower end of its 95% bootstrap interval over prompts';
COMMENT ON COLUMN intervention_summary.control_ci_high IS 'Upper end of that interval';
