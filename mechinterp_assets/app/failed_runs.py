"""Failures of runs that nothing has made good since, for the first page of the dashboards.

Belongs here: reading them from Dagster's instance. Does not belong here: what the page shows
(dashboards/studies_page.py), what is stale (staleness/).
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import dagster as dg

from mechinterp_assets.app.run_progress import root_cause
from mechinterp_assets.dashboards.studies_page import Failure
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import parse_site

# Runs that are looked through, the latest first.
LATEST_RUNS = 20

_PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
_FAILED = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
Place = tuple[str, str]


def failures(instance: dg.DagsterInstance, lake: Lake) -> list[Failure]:
    """Steps and checks that failed, the latest first, of which a table partition is not made since.

    A run of which no step failed, such as one that was interrupted, has none.
    """
    records = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=LATEST_RUNS
    )
    made = _made(lake) if records else {}
    return [
        failure
        for record in records
        for failure, places in _of_run(instance, record.dagster_run.run_id)
        if any(made.get(place, 0.0) < failure.at.timestamp() for place in places)
    ]


# ---- private -------------------------------------------------------------------------------------


def _made(lake: Lake) -> dict[Place, float]:
    """When the current version of each table partition was written, in seconds of the epoch."""
    if lake.is_empty():
        return {}
    rows = lake.sql("SELECT table_name, partition, epoch(written_at) FROM lineage").rows()
    return {(table, partition): seconds for table, partition, seconds in rows}


def _of_run(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[Failure, set[Place]]]:
    planned = _planned(instance, run_id)
    for entry in instance.all_logs(run_id, of_type=_FAILED):
        event = entry.dagster_event
        if event is None:
            continue
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            step, why = event.step_key or "", root_cause(event.step_failure_data.error)
            places = planned.get(step, set())
        else:
            check = event.asset_check_evaluation_data
            if check.passed or check.severity != dg.AssetCheckSeverity.ERROR:
                continue
            step = check.asset_key.to_user_string()
            why = f"check {check.check_name} failed"
            partition = check.partition
            every = {place for places in planned.values() for place in places}
            places = {
                place
                for place in every
                if place[0] == step and (partition is None or place[1] == partition)
            }
        partitions = sorted({partition for _, partition in places})
        at = datetime.fromtimestamp(entry.timestamp, UTC)
        yield Failure(run_id, _study(partitions), step, tuple(partitions), why, at), places


def _planned(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, set[Place]]:
    """Step -> table partitions that it was to make."""
    found: dict[str, set[Place]] = {}
    for entry in instance.all_logs(run_id, of_type={_PLANNED}):
        event = entry.dagster_event
        if event is not None and event.asset_key is not None and event.partition is not None:
            place = (event.asset_key.to_user_string(), event.partition)
            found.setdefault(event.step_key or "", set()).add(place)
    return found


def _study(partitions: list[str]) -> str:
    """Study of the partitions: they are studies, or sites of one."""
    if not partitions:
        return ""
    try:
        return parse_site(partitions[0])[0]
    except ValueError:
        return partitions[0]
