"""Runs whose process was killed: closed, so that they hold no pool's slot.

Belongs here: telling that a run of `mechinterp materialize` lost its process, and giving back what
it held. Dagster's daemon does the same for runs that it launched; a run in a process of its own is
unknown to it, and its slot would block every later run for good.

Such a run is tagged with the name of a file that its process keeps locked. A lock goes with its
process, however that ends, so a run with a free lock is not running.
"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from mechinterp_assets.storage.files import locked, try_locked

TAG = "mechinterp/process"
FOLDER = "processes"
_UNFINISHED = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@contextmanager
def living_process(instance_folder: Path) -> Iterator[dict[str, str]]:
    """The tag of runs that this process makes within the block."""
    name = uuid.uuid4().hex
    path = instance_folder / FOLDER / name
    try:
        with locked(path):
            yield {TAG: name}
    finally:
        path.unlink(missing_ok=True)


def close_killed_runs(instance: dg.DagsterInstance, instance_folder: Path) -> list[str]:
    """Mark runs without a process as failed and free their slots; their ids."""
    closed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        name = run.tags.get(TAG)
        if name is None or _is_locked(instance_folder / FOLDER / name):
            continue
        instance.report_run_failed(run, "The process of this run was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        closed.append(run.run_id)
    return closed


def living_runs(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> set[str]:
    """Those runs that are on record and have not ended."""
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in run_ids}
    return {run_id for run_id, run in runs.items() if run is not None and not run.is_finished}


def runs_in_the_way(instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """Pools without a free slot, with the runs that hold theirs."""
    storage = instance.event_log_storage
    full = {}
    for pool in sorted(storage.get_concurrency_keys()):
        info = storage.get_concurrency_info(pool)
        if info.active_slot_count >= info.slot_count:
            full[pool] = sorted(info.active_run_ids)
    return full


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with try_locked(path) as free:
        return not free
