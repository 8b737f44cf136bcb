"""Asset checks that block what lies downstream: one SQL number per partition, and its bounds.

Belongs here: what must hold of a published table before anything is built on it. What must hold
before publishing is checked where it is computed.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.table_spec import Per
from mechinterp_assets.studies.study import Study

IDENTITY_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Rule:
    """`sql` gives one number for a study (and layer); it must lie within `bounds`."""

    table: str
    name: str
    description: str
    per: Per
    sql: str
    bounds: Callable[[Study], tuple[float, float]]


def _none(study: Study) -> tuple[float, float]:
    return (0, 0)


RULES = (
    Rule(
        "tokenized_corpus",
        "token_ids_in_range",
        "No sequence has a token id outside the vocabulary or starts with anything but BOS",
        "study",
        "SELECT count(*) FROM tokenized_corpus JOIN language_model USING (study)"
        " WHERE study = $study AND (list_min(token_ids) < 0 OR list_max(token_ids) >= d_vocab"
        " OR token_ids[1] <> bos_token_id)",
        _none,
    ),
    Rule(
        "activation_statistics",
        "no_nan",
        "The mean, norm and rms of every head's z are finite",
        "site",
        "SELECT count(*) FROM activation_statistics WHERE study = $study AND layer = $layer"
        " AND NOT (isfinite(mean_norm) AND isfinite(rms)"
        " AND list_bool_and(list_transform(mean_z, lambda x: isfinite(x))))",
        _none,
    ),
    Rule(
        "sae_evaluation",
        "l0_in_bounds",
        "Mean active features per held-out token lies within the study's checks.l0",
        "site",
        "SELECT max(l0) FROM sae_evaluation WHERE study = $study AND layer = $layer",
        lambda study: study.checks.l0,
    ),
    Rule(
        "sae_evaluation",
        "splice_cost_in_bounds",
        "The splice costs at most 1 - checks.ce_recovered_min of what zero ablation costs, or of"
        " 0.05 nats where zero ablation costs less",
        "site",
        "SELECT max((ce_spliced - ce_clean) / greatest(ce_zero - ce_clean, 0.05))"
        " FROM sae_evaluation WHERE study = $study AND layer = $layer",
        lambda study: (-math.inf, 1 - study.checks.ce_recovered_min),
    ),
    Rule(
        "feature_dfa",
        "dfa_sums_to_pre_activation",
        "Direct feature attribution by head and by source sums to the feature's pre-activation",
        "site",
        "SELECT coalesce(max(identity_error), 0) FROM feature_dfa"
        " WHERE study = $study AND layer = $layer",
        lambda study: (0, IDENTITY_TOLERANCE),
    ),
    Rule(
        "feature_rdfa",
        "tree_levels_sum",
        "The parts of every node of a recursive attribution tree sum to it (error relative to the"
        " sum of their sizes)",
        "site",
        "WITH parts AS (SELECT feature, rank, parent AS node, sum(dfa) AS total,"
        " sum(abs(dfa)) AS size FROM feature_rdfa"
        " WHERE study = $study AND layer = $layer AND parent IS NOT NULL GROUP BY ALL)"
        " SELECT coalesce(max(abs(total - dfa) / size), 0) FROM feature_rdfa"
        " JOIN parts USING (feature, rank, node) WHERE study = $study AND layer = $layer",
        lambda study: (0, IDENTITY_TOLERANCE),
    ),
    Rule(
        "attention_slices",
        "slices_sum_to_scores",
        "The slices of Omega sum to the attention score of every traced pair",
        "study",
        "SELECT coalesce(max(relative_identity_error), 0) FROM attention_slices"
        " WHERE study = $study",
        lambda study: (0, IDENTITY_TOLERANCE),
    ),
    Rule(
        "ioi_baseline",
        "ioi_accuracy",
        "The model prefers the indirect object on enough base prompts (checks.ioi_accuracy_min)",
        "study",
        "SELECT avg(prefers_io::INT) FROM ioi_baseline JOIN ioi_prompts USING (study, prompt)"
        " WHERE study = $study AND variant = 'base'",
        lambda study: (study.checks.ioi_accuracy_min or 0, 1),
    ),
)


def _check(rule: Rule) -> dg.AssetChecksDefinition:
    partitions = PARTITIONS.studies if rule.per == "study" else PARTITIONS.sites

    @dg.asset_check(
        asset=rule.table,
        name=rule.name,
        description=rule.description,
        blocking=True,
        partitions_def=partitions,
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        values: dict[str, float] = {}
        failed: list[str] = []
        for key in context.op_execution_context.partition_keys:
            study, parameters = _parameters(rule, key)
            row = lake.sql(rule.sql, parameters).row(0)
            values[key] = math.nan if row[0] is None else float(row[0])
            low, high = rule.bounds(study)
            if not low <= values[key] <= high:
                failed.append(f"{key}: {values[key]:.4g} is not within [{low:g}, {high:g}]")
        return dg.AssetCheckResult(
            passed=not failed,
            description="; ".join(failed) or rule.description,
            metadata={**values, "sql": dg.MetadataValue.md(f"```sql\n{rule.sql}\n```")},
        )

    return check


def _parameters(rule: Rule, key: str) -> tuple[Study, dict[str, str | int]]:
    if rule.per == "study":
        return STUDIES[key], {"study": key}
    study, layer = site(key)
    return study, {"study": study.study, "layer": layer}


with warnings.catch_warnings():
    # Partitioned checks are a preview in Dagster 1.13; the lock on 1.13 keeps them as they are.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    CHECKS = [_check(rule) for rule in RULES]
