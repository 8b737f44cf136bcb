"""The code location: loads, declares everything, and maps partitions explicitly."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from mechinterp_assets.definitions import build_definitions
from mechinterp_assets.defs.checks import CHECKS
from mechinterp_assets.defs.reproduction.reproduction import SITE_TABLES, STUDY_TABLES
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.storage.declarations import table_specs

# The asset graph: asset -> upstream assets. A change here is a change users see.
GRAPH = {
    "language_model": set(),
    "corpus_documents": {"language_model"},
    "tokenized_corpus": {"language_model"},
    "vocabulary": {"language_model"},
    "ioi_prompts": {"language_model"},
    "task_prompts": {"language_model"},
    "task_baseline": {"language_model", "ioi_prompts", "task_prompts"},
    "task_head_effects": {"language_model", "ioi_prompts", "task_prompts"},
    "component_reuse": {"language_model", "ioi_prompts", "task_prompts"},
    "component_reuse_faithfulness": {"language_model", "ioi_prompts", "task_prompts"},
    "activation_cache": {"language_model", "tokenized_corpus"},
    "activation_statistics": {"language_model", "tokenized_corpus"},
    "attention_sae": {
        "language_model",
        "tokenized_corpus",
        "activation_cache",
        "activation_statistics",
    },
    "sae_training_log": {
        "language_model",
        "tokenized_corpus",
        "activation_cache",
        "activation_statistics",
    },
    "sae_evaluation": {
        "language_model",
        "tokenized_corpus",
        "attention_sae",
        "activation_statistics",
    },
    "sae_frontier": {
        "language_model",
        "tokenized_corpus",
        "activation_cache",
        "activation_statistics",
    },
    "feature_statistics": {"language_model", "vocabulary", "activation_cache", "attention_sae"},
    "feature_activations": {"language_model", "vocabulary", "activation_cache", "attention_sae"},
    "feature_top_examples": {"language_model", "vocabulary", "activation_cache", "attention_sae"},
    "feature_intervals": {"language_model", "vocabulary", "activation_cache", "attention_sae"},
    "feature_interval_examples": {
        "language_model",
        "vocabulary",
        "activation_cache",
        "attention_sae",
    },
    "feature_ngrams": {
        "language_model",
        "vocabulary",
        "activation_cache",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
    },
    "feature_neighbours": {
        "language_model",
        "vocabulary",
        "activation_cache",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
    },
    "feature_logit_effects": {"language_model", "vocabulary", "attention_sae"},
    "feature_head_attribution": {"language_model", "vocabulary", "attention_sae"},
    "feature_dfa": {
        "language_model",
        "tokenized_corpus",
        "attention_sae",
        "feature_top_examples",
    },
    "feature_dfa_matrix": {
        "language_model",
        "tokenized_corpus",
        "attention_sae",
        "feature_top_examples",
    },
    "feature_rdfa": {
        "language_model",
        "tokenized_corpus",
        "feature_statistics",
        "feature_families",
        "attention_sae",
        "feature_top_examples",
        "feature_logit_effects",
    },
    "feature_families": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "head_scores",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
        "feature_logit_effects",
        "feature_head_attribution",
        "feature_dfa",
    },
    "induction_test": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "head_scores",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
        "feature_logit_effects",
        "feature_head_attribution",
        "feature_dfa",
    },
    "feature_proxies": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
        "feature_logit_effects",
    },
    "feature_proxy_histogram": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "attention_sae",
        "feature_statistics",
        "feature_activations",
        "feature_logit_effects",
    },
    "feature_labels": {"language_model", "attention_sae"},
    "feature_label_summary": {"language_model", "attention_sae"},
    "sae_matching": {
        "language_model",
        "tokenized_corpus",
        "attention_sae",
        "feature_statistics",
        "feature_top_examples",
    },
    "feature_dashboards": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "head_scores",
        "ioi_trace_graph",
        "feature_labels",
        "feature_statistics",
        "feature_activations",
        "feature_top_examples",
        "feature_intervals",
        "feature_interval_examples",
        "feature_logit_effects",
        "feature_head_attribution",
        "feature_dfa",
        "feature_dfa_matrix",
        "feature_rdfa",
        "feature_ngrams",
        "feature_neighbours",
        "feature_families",
        "feature_proxies",
        "attention_sae",
        "sae_evaluation",
    },
    "study_dashboards": {
        "language_model",
        "head_dashboards",
        "experiment_dashboards",
        "feature_dashboards",
        "feature_statistics",
        "sae_evaluation",
    },
    "experiment_dashboards": {
        "language_model",
        "ioi_prompts",
        "intervention_experiments",
        "intervention_results",
        "intervention_sets",
        "intervention_summary",
        "circuit_faithfulness",
        "circuit_faithfulness_summary",
        "component_reuse_faithfulness",
        "prefix_induction",
        "qk_feature_pairs",
        "qk_feature_summary",
    },
    "head_scores": {"language_model", "tokenized_corpus"},
    "ioi_head_scores": {"language_model", "ioi_prompts"},
    "attention_sinks": {"language_model", "tokenized_corpus"},
    "massive_activations": {"language_model", "tokenized_corpus"},
    "head_attention_examples": {"language_model", "tokenized_corpus"},
    "head_features": {
        "language_model",
        "attention_sae",
        "feature_head_attribution",
        "feature_statistics",
        "feature_ngrams",
        "feature_logit_effects",
    },
    "head_polysemanticity_proxy": {
        "language_model",
        "attention_sae",
        "feature_head_attribution",
        "feature_statistics",
        "feature_ngrams",
        "feature_logit_effects",
    },
    "head_dashboards": {
        "language_model",
        "tokenized_corpus",
        "vocabulary",
        "head_scores",
        "ioi_head_scores",
        "head_attention_examples",
        "head_labels",
        "ioi_trace_graph",
        "ioi_trace_nodes",
        "intervention_summary",
        "task_head_effects",
        "head_features",
        "head_polysemanticity_proxy",
        "feature_families",
        "feature_dashboards",
    },
    "head_labels": {"language_model", "attention_sae"},
    "head_label_summary": {"language_model", "attention_sae"},
    "prefix_induction": {"language_model", "tokenized_corpus", "head_scores"},
    "prefix_induction_corpus": {"language_model", "tokenized_corpus", "head_scores"},
    "prefix_induction_intervention": {"language_model", "tokenized_corpus", "head_scores"},
    "ioi_baseline": {"language_model", "ioi_prompts"},
    "attention_svd": {"language_model"},
    "attention_slices": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_trace_edges": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_trace_graph": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_trace_nodes": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_trace_variants": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_trace_summary": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "ioi_slice_contrast": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "attention_consensus": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "attention_token_signal": {"language_model", "ioi_prompts", "ioi_baseline", "task_prompts"},
    "attention_slice_counts": {"language_model", "ioi_prompts", "tokenized_corpus"},
    "attention_slice_usage": {"language_model", "ioi_prompts", "tokenized_corpus"},
    "edge_attribution": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_graph",
        "head_scores",
        "ioi_head_scores",
    },
    "edge_attribution_agreement": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_graph",
        "head_scores",
        "ioi_head_scores",
    },
    "circuit_faithfulness": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_graph",
        "head_scores",
        "ioi_head_scores",
    },
    "circuit_faithfulness_summary": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_graph",
        "head_scores",
        "ioi_head_scores",
    },
    "head_set_quality": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_graph",
        "head_scores",
        "ioi_head_scores",
    },
    "subspace_patching": {"language_model", "ioi_prompts", "task_prompts", "attention_sae"},
    "intervention_results": {
        "language_model",
        "ioi_prompts",
        "ioi_trace_edges",
        "ioi_trace_graph",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "intervention_sets": {
        "language_model",
        "ioi_prompts",
        "ioi_trace_edges",
        "ioi_trace_graph",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "intervention_experiments": {
        "language_model",
        "ioi_prompts",
        "ioi_trace_edges",
        "ioi_trace_graph",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "intervention_summary": {"intervention_results"},
    "qk_feature_pairs": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "qk_feature_kinds": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "qk_feature_summary": {
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "head_scores",
        "ioi_head_scores",
        "attention_sae",
    },
    "reproduction": {"language_model", *STUDY_TABLES, *SITE_TABLES},
}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {s.key.to_user_string(): s for s in definitions.resolve_all_asset_specs()}


def test_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_graph(definitions: dg.Definitions) -> None:
    found = {
        name: {dep.asset_key.to_user_string() for dep in spec.deps}
        for name, spec in specs(definitions).items()
    }
    assert found == GRAPH


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    for name, spec in specs(definitions).items():
        assert spec.owners, name
        assert spec.kinds, name
        assert spec.group_name not in (None, "default"), name
        assert spec.code_version, name
        assert spec.description, name
        schema = spec.metadata["dagster/column_schema"]
        assert all(column.description for column in schema.columns), name


def test_assets_are_the_declared_tables(definitions: dg.Definitions) -> None:
    assert set(specs(definitions)) == set(table_specs())


def test_no_silent_identity_mapping(definitions: dg.Definitions) -> None:
    """Dagster infers identity between different static definitions: never rely on it."""
    by_name = specs(definitions)
    for name, spec in by_name.items():
        for dep in spec.deps:
            upstream = by_name[dep.asset_key.to_user_string()]
            mapping = dep.partition_mapping
            assert mapping is not None, f"{name} <- {dep.asset_key}: no explicit mapping"
            crosses = upstream.partitions_def != spec.partitions_def
            if mapping is PARTITIONS.sites_to_later_sites:
                assert not crosses, name
                continue
            assert isinstance(mapping, dg.StaticPartitionMapping) == crosses, name


def test_mappings_go_both_ways() -> None:
    sites, studies = PARTITIONS.sites, PARTITIONS.studies

    def upstream(
        mapping: dg.StaticPartitionMapping,
        down: dg.StaticPartitionsDefinition,
        up: dg.StaticPartitionsDefinition,
        key: str,
    ) -> set[str]:
        subset = down.empty_subset().with_partition_keys([key])
        result = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, down, up)
        return set(result.partitions_subset.get_partition_keys())

    assert upstream(PARTITIONS.study_to_sites, sites, studies, "tiny.L02") == {"tiny"}
    assert upstream(PARTITIONS.sites_to_study, studies, sites, "tiny") == {"tiny.L00", "tiny.L02"}
    later = PARTITIONS.sites_to_later_sites
    assert upstream(later, sites, sites, "tiny.L00") == {"tiny.L00"}
    assert upstream(later, sites, sites, "tiny.L02") == {"tiny.L00", "tiny.L02"}
    down = PARTITIONS.study_to_sites.get_downstream_partitions_for_partitions(
        studies.empty_subset().with_partition_keys(["gpt2-small"]), studies, sites
    )
    assert len(list(down.get_partition_keys())) == STUDIES["gpt2-small"].n_layers


def test_checks_block(definitions: dg.Definitions) -> None:
    checks = definitions.resolve_asset_graph().asset_check_keys
    assert {key.name for key in checks} >= {
        "token_ids_in_range",
        "no_nan",
        "l0_in_bounds",
        "splice_cost_in_bounds",
        "slices_sum_to_scores",
        "ioi_accuracy",
    }
    for check in CHECKS:
        assert all(spec.blocking for spec in check.check_specs)


def test_gpu_work_is_in_the_pool(definitions: dg.Definitions) -> None:
    pools = {
        assets.op.name: assets.op.pool
        for assets in definitions.resolve_asset_graph().assets_defs
        if assets.is_executable
    }
    for name in ("activation_cache", "attention_sae", "sae_evaluation", "feature_pass"):
        assert pools[name] == "gpu", name


def test_schedule_requests_only_trained_saes(tmp_path: Path) -> None:
    from mechinterp_assets.defs.automation import weekly_evaluation

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        context = dg.build_schedule_context(instance, datetime(2026, 1, 5, 3, tzinfo=UTC))
        assert weekly_evaluation(context) == []
        for key in ("tiny.L00", "tiny.L02", "organism.L01"):
            instance.report_runless_asset_event(
                dg.AssetMaterialization("attention_sae", partition=key)
            )
        requests = weekly_evaluation(context)
    ranges = {
        (
            r.tags["dagster/asset_partition_range_start"],
            r.tags["dagster/asset_partition_range_end"],
        )
        for r in requests
    }
    assert ranges == {("tiny.L00", "tiny.L02"), ("organism.L01", "organism.L01")}
