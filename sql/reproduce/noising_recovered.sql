-- Share of the logit difference that is kept when attention outputs at S2 come from another prompt
-- (patched - zero-ablated) / (clean - zero-ablated), as K24 normalises. Keys: layers, variant, baseline: zero (at S2) or zero_all.
-- Variants and_* on prompts of templates with one conjunction alone.
-- statistic: (patched - zero-ablated) / (clean - zero-ablated), of means over prompts of the logit difference
-- position: each prompt's S2; by key, zero ablation there (zero) or everywhere (zero_all)
-- weights: processed
-- prompts: this project's
-- run: model, bos
SELECT
    regexp_replace(intervention, '^(?:set:)?noise:attn_out:(.+):S2:(.+):vs-(.+)$', '\1 \2 \3') AS key,
    recovered_from_ablated AS value,
    abs(mean_clean - mean_ablated) / nullif(abs(mean_clean), 0) AS divisor_share
FROM intervention_summary
WHERE study = coalesce(getvariable('study'), 'organism')
    AND task = 'ioi'
    AND metric = 'logit_diff'
    AND regexp_matches(intervention, '^(set:)?noise:attn_out:.+:S2:.+:vs-zero(_all)?$')
ORDER BY key;
