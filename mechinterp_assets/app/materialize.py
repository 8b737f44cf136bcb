"""Materialize a whole study in this process, stage by stage.

Belongs here: the order of the stages and the Dagster instance they are recorded in, so that a
command line and the UI see the same runs. Does not belong here: printing (cli.py).
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from mechinterp_assets.app.killed_runs import close_killed_runs, living_process, runs_in_the_way
from mechinterp_assets.storage.home import dagster_folder
from mechinterp_assets.studies.study import Study

_log = logging.getLogger(__name__)

INSTANCE_TEMPLATE = Path(__file__).parent / "dagster.yaml"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def prepare_instance_folder() -> Path:
    """DAGSTER_HOME of this project, with its dagster.yaml; also set for child processes."""
    folder = dagster_folder()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        shutil.copyfile(INSTANCE_TEMPLATE, settings)
    os.environ["DAGSTER_HOME"] = str(folder)
    return folder


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The instance that `make ui` shows."""
    prepare_instance_folder()
    with dg.DagsterInstance.get() as opened:
        yield opened


class StudyFailedError(RuntimeError):
    """A stage of a study failed; the message names the asset or check and its error."""


def materialize_study(
    definitions: dg.Definitions, study: Study, on_instance: dg.DagsterInstance
) -> Iterator[dg.ExecuteInProcessResult]:
    """Run every stage of a study in order and yield each stage's result.

    Per-study assets that need no SAE come first, then all per-layer assets in one run over the
    study's layers, then per-study assets that read them.
    Raises StudyFailedError when a stage fails; what earlier stages published stays.
    """
    folder = Path(on_instance.root_directory)
    for run_id in close_killed_runs(on_instance, folder):
        _log.warning("run %s was killed: closed it, its slots are free", run_id)
    for pool, runs in runs_in_the_way(on_instance).items():
        _log.warning("pool %s is taken by %s: waiting for its turn", pool, ", ".join(runs))
    for job_name, tags in (
        ("study_foundations", {"dagster/partition": study.study}),
        ("study_layers", {RANGE_START: study.sites[0], RANGE_END: study.sites[-1]}),
        ("study_overviews", {"dagster/partition": study.study}),
    ):
        job = definitions.resolve_job_def(job_name)
        with living_process(folder) as process:
            result = job.execute_in_process(
                instance=on_instance,
                partition_key=tags.get("dagster/partition"),
                tags=tags | process,
                run_config={"loggers": {"console": {}}},  # the short one of the code location
                raise_on_error=False,
            )
        if not result.success:
            raise StudyFailedError(_why(job_name, study, result))
        yield result


def _why(job_name: str, study: Study, result: dg.ExecuteInProcessResult) -> str:
    lines = [f"{job_name} of {study.study} failed (run {result.run_id}):"]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            lines.append(f"  check {check.check_name} of {check.asset_key.to_user_string()} failed")
    for event in result.filter_events(lambda e: e.is_step_failure):
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        lines.append(f"  {event.step_key}: {error.message.strip() if error else 'unknown error'}")
    return "\n".join(lines)
