"""Asset checks of every table, one step per table: `declaration`, which is all that follows from
its declaration, and one check for each of its files in sql/checks.

A breach of severity error blocks what lies downstream; a warning does not. Each partition of a run
has its own evaluation of each check, also where one run covers several: Dagster ties a result to a
partition only in runs of a single one, so evaluations are written as such here. Dagster stores an
evaluation in about the time that a statement takes to run, hence one for a whole declaration.

Belongs here: how Dagster shows checks. Does not belong here: the checks (sql/, storage/checks.py).
What must hold before publishing is checked where it is computed.
"""

import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.orchestration.table_checks import scope
from mechinterp_assets.storage.check_runs import CheckResult, run_checks
from mechinterp_assets.storage.checks import Severity, TableCheck, table_checks
from mechinterp_assets.storage.declarations import table_spec
from mechinterp_assets.storage.lake import Lake

# Marks the steps that are no assets, for those who count steps.
CHECK_STEP = "mechinterp/checks"
DECLARATION = "declaration"

_SEVERITIES: dict[Severity, dg.AssetCheckSeverity] = {
    "error": dg.AssetCheckSeverity.ERROR,
    "warn": dg.AssetCheckSeverity.WARN,
}


def _checks_of(table: str, checks: Sequence[TableCheck]) -> dg.AssetChecksDefinition:
    per = table_spec(table).per
    partitions = PARTITIONS.studies if per == "study" else PARTITIONS.sites
    shown: dict[str, list[TableCheck]] = {}
    for check in checks:
        shown.setdefault(_shown_as(check), []).append(check)
    specs = [
        dg.AssetCheckSpec(
            name,
            asset=table,
            description=_description(of),
            blocking=of[0].severity == "error",
            partitions_def=partitions,
        )
        for name, of in shown.items()
    ]

    @dg.multi_asset_check(name=f"{table}_checks", specs=specs, op_tags={CHECK_STEP: table})
    def of_table(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> Iterator[dg.AssetCheckEvaluation | dg.Output[None]]:
        keys = context.op_execution_context.partition_keys
        work = [
            (checks, scope(STUDIES[key] if per == "study" else site(key)[0], key, per))
            for key in keys
        ]
        targets = {key: _target(context, table, key) for key in keys}
        results = run_checks(lake, work)
        for (key, name), of in groupby(results, lambda one: (one.partition, _shown_as(one.check))):
            yield _evaluation(name, list(of), targets[key])
        for spec in specs:
            yield dg.Output(None, spec.get_python_identifier())

    return of_table


def _shown_as(check: TableCheck) -> str:
    return DECLARATION if check.is_generated else check.name


def _description(checks: Sequence[TableCheck]) -> str:
    if len(checks) == 1:
        return checks[0].description
    return "\n".join(f"- {check.name}: {check.description}" for check in checks)


def _evaluation(
    name: str,
    results: Sequence[CheckResult],
    target: AssetCheckEvaluationTargetMaterializationData | None,
) -> dg.AssetCheckEvaluation:
    """What checks that are shown as one found in a partition, and the statements that found it."""
    checks = [one.check for one in results]
    failed = [one for one in results if not one.passed]
    found = [f"{one.check.name}: {one.what}" if len(results) > 1 else one.what for one in failed]
    statements = ";\n\n".join(f"-- {one.check.name}\n{one.sql}" for one in failed or results)
    metadata: dict[str, dg.MetadataValue] = {
        "breaches": dg.MetadataValue.int(sum(one.n_breaches for one in results)),
        "sql": dg.MetadataValue.md(f"```sql\n{statements};\n```"),
    }
    for one in failed:
        metadata[f"rows of {one.check.name}"] = dg.MetadataValue.json(
            [
                {k: None if v is None else str(v) for k, v in row.items()}
                for row in one.breaches.iter_rows(named=True)
            ]
        )
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(checks[0].table),
        check_name=name,
        passed=not failed,
        severity=_SEVERITIES[checks[0].severity],
        blocking=checks[0].severity == "error",
        partition=results[0].partition,
        description="\n".join(found) or _description(checks),
        target_materialization_data=target,
        metadata=metadata,
    )


def _target(
    context: dg.AssetCheckExecutionContext, table: str, partition: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    """The materialization that is checked; None where Dagster knows of none."""
    filters = dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=[partition])
    records = context.instance.fetch_materializations(filters, limit=1).records
    if not records:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=records[0].storage_id, run_id=records[0].run_id, timestamp=records[0].timestamp
    )


with warnings.catch_warnings():
    # Partitioned checks are a preview in Dagster 1.13; the lock on 1.13 keeps them as they are.
    warnings.simplefilter("ignore", dg.PreviewWarning)
    CHECKS = [_checks_of(table, checks) for table, checks in table_checks().items()]
