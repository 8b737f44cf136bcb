"""What every asset declares, in one place: a table, its columns, its dependencies, its version.

Belongs here: the AssetSpec of a table. Names, types, comments and formula versions come from
`sql/tables/<table>.sql`, so Dagster shows the words that DuckDB shows.
"""

from collections.abc import Sequence
from typing import Literal

import dagster as dg

from mechinterp_assets.orchestration.registry import PARTITIONS
from mechinterp_assets.storage.declarations import TableSpec, table_spec

OWNERS = ["team:interpretability"]
GPU_POOL = "gpu"

Per = Literal["study", "site"]


def dependency(asset: str, upstream: Per, downstream: Per) -> dg.AssetDep:
    """Dependency on `asset`, with the mapping between both partitionings spelled out."""
    mapping: dg.PartitionMapping = dg.IdentityPartitionMapping()
    if (upstream, downstream) == ("study", "site"):
        mapping = PARTITIONS.study_to_sites
    elif (upstream, downstream) == ("site", "study"):
        mapping = PARTITIONS.sites_to_study
    return dg.AssetDep(asset, partition_mapping=mapping)


def column_schema(spec: TableSpec) -> dg.TableSchema:
    """Dagster's column schema of a table: the declared columns, then provenance."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name=column.name, type=column.type, description=column.comment)
            for column in spec.stored_columns
        ]
    )


def rerun_when_stale() -> dg.AutomationCondition[dg.AssetKey]:
    """Run once after an input was updated or the formula changed, when all inputs are there.

    Takes effect for a study once the sensor `default_automation_condition_sensor` is switched on.
    """
    condition = dg.AutomationCondition
    changed = condition.code_version_changed().since(
        condition.newly_requested() | condition.newly_updated()
    )
    ready = ~condition.any_deps_missing() & ~condition.in_progress()
    return (condition.eager() | (changed & ready & ~condition.missing())).with_label(
        "input or formula changed"
    )


def table_asset(
    table: str,
    *,
    per: Per,
    group: str,
    study_deps: Sequence[str] = (),
    site_deps: Sequence[str] = (),
    earlier_site_deps: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> dg.AssetSpec:
    """Spec of the asset that writes `table`; `study_deps` and `site_deps` name its upstream.

    `earlier_site_deps` are read from the site itself and from all earlier layers of its study.
    """
    spec = table_spec(table)
    return dg.AssetSpec(
        table,
        deps=[dependency(name, "study", per) for name in study_deps]
        + [dependency(name, "site", per) for name in site_deps]
        + [
            dg.AssetDep(name, partition_mapping=PARTITIONS.sites_to_later_sites)
            for name in earlier_site_deps
        ],
        description=spec.comment,
        group_name=group,
        kinds={"duckdb", "parquet", *kinds},
        owners=OWNERS,
        tags={"per": per},
        code_version=f"formula-{spec.formula_version}",
        automation_condition=rerun_when_stale(),
        metadata={
            "dagster/column_schema": column_schema(spec),
            "dagster/table_name": f"mechinterp.main.{table}",
        },
    )
