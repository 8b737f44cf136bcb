"""One Dagster run in this process, recorded as the UI's own runs are.

Belongs here: making the run with the code location that the UI shows it under, and executing it.
Does not belong here: what is run (materialize.py).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run_iterator
from dagster._core.remote_origin import RemoteJobOrigin, RemoteRepositoryOrigin

from mechinterp_assets.app.code_location import code_location

REPOSITORY = "__repository__"


@dataclass(frozen=True)
class FinishedRun:
    """A run that has ended, with its events."""

    run_id: str
    events: list[dg.DagsterEvent]

    @property
    def success(self) -> bool:
        """Whether it ended well."""
        return any(event.event_type == dg.DagsterEventType.RUN_SUCCESS for event in self.events)

    @property
    def materializations(self) -> list[dg.AssetMaterialization]:
        """What was published, an event per partition of a table."""
        return [
            event.step_materialization_data.materialization
            for event in self.events
            if event.is_step_materialization
        ]

    @property
    def checks(self) -> list[dg.AssetCheckEvaluation]:
        """What asset checks said."""
        return [
            event.asset_check_evaluation_data
            for event in self.events
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ]


def execute(
    job: dg.JobDefinition,
    on_instance: dg.DagsterInstance,
    *,
    run_id: str,
    tables: Iterable[str],
    tags: Mapping[str, str],
) -> FinishedRun:
    """Execute some tables of an asset job; a failure is in the events, not raised."""
    selection = frozenset(dg.AssetKey(table) for table in tables)
    run = on_instance.create_run_for_job(
        job_def=job,
        run_id=run_id,
        run_config={"loggers": {"console": {}}},  # the short one of the code location
        tags=tags,
        asset_selection=selection,
        remote_job_origin=_origin(job.name),
    )
    return FinishedRun(run_id, list(execute_run_iterator(InMemoryJob(job), run, on_instance)))


# ---- private -------------------------------------------------------------------------------------


@cache
def _origin(job: str) -> RemoteJobOrigin:
    """Where the UI finds the job: the workspace's one code location."""
    return RemoteJobOrigin(RemoteRepositoryOrigin(code_location(), REPOSITORY), job)
