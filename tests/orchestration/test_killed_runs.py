"""Runs whose process is gone give their slots back; living ones keep them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from mechinterp_assets.orchestration.killed_runs import (
    FOLDER,
    TAG,
    close_killed_runs,
    living_process,
    runs_in_the_way,
)

POOL = "gpu"
HOLDER = """
import sys, time
from pathlib import Path
from mechinterp_assets.orchestration.killed_runs import living_process
with living_process(Path(sys.argv[1])) as tag:
    print(*tag.values(), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        opened.event_log_storage.set_concurrency_slots(POOL, 1)
        yield opened


def started_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    """A run that holds the pool's only slot."""

    @dg.job
    def nothing() -> None: ...

    run = instance.create_run_for_job(nothing, status=DagsterRunStatus.STARTED, tags=tags)
    claim = instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "step")
    assert claim.is_claimed
    return run.run_id


def status(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_a_killed_process_leaves_no_slot_taken(instance: dg.DagsterInstance) -> None:
    folder = Path(instance.root_directory)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        name = holder.stdout.readline().strip()
        run_id = started_run(instance, {TAG: name})
        assert close_killed_runs(instance, folder) == []
        assert runs_in_the_way(instance) == {POOL: [run_id]}
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert close_killed_runs(instance, folder) == [run_id]
    assert status(instance, run_id) == DagsterRunStatus.FAILURE
    assert runs_in_the_way(instance) == {}
    started_run(instance, {})


def test_a_living_run_and_those_of_other_launchers_are_left_alone(
    instance: dg.DagsterInstance,
) -> None:
    folder = Path(instance.root_directory)
    with living_process(folder) as tag:
        run_id = started_run(instance, tag)
        other = instance.create_run_for_job(
            dg.JobDefinition(name="other", graph_def=dg.GraphDefinition(name="other")),
            status=DagsterRunStatus.STARTED,
        ).run_id
        assert close_killed_runs(instance, folder) == []
        assert status(instance, run_id) == status(instance, other) == DagsterRunStatus.STARTED
    assert list((folder / FOLDER).iterdir()) == []
