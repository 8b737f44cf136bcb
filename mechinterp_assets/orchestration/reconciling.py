"""What killed runs had published and not yet reported: told to Dagster.

Belongs here: the moment between a partition's publishing and its event, in which a process can die.
Does not belong here: publishing (publishing.py), closing killed runs (killed_runs.py).
"""

from collections.abc import Iterable

import dagster as dg
from dagster._core.definitions.data_version import (
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
)

from mechinterp_assets.storage.lake import Lake


def report_published(instance: dg.DagsterInstance, lake: Lake, run_ids: Iterable[str]) -> int:
    """Report current versions of these runs that Dagster has no event of; how many there were."""
    runs = sorted(set(run_ids))
    if not runs or lake.is_empty():
        return 0
    made = lake.sql(
        "SELECT table_name, partition, data_version, run_id FROM lineage"
        " WHERE list_contains(?, run_id)",
        [runs],
    )
    reported = 0
    for table, partition, data_version, run_id in made.iter_rows():
        filters = dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=[partition])
        latest = instance.fetch_materializations(filters, limit=1).records
        event = latest[0].asset_materialization if latest else None
        if event is not None and (event.tags or {}).get(DATA_VERSION_TAG) == data_version:
            continue
        tags = {DATA_VERSION_TAG: data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                table,
                partition=partition,
                description=f"Published by run {run_id}, which was killed before it said so",
                tags=tags,
            )
        )
        reported += 1
    return reported
