"""Materialize a whole study in this process, stage by stage.

Belongs here: the order of the stages and the Dagster instance they are recorded in, so that a
command line and the UI see the same runs. Does not belong here: lines of progress
(run_progress.py).
"""

import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from mechinterp_assets.app.killed_runs import close_killed_runs, living_process, runs_in_the_way
from mechinterp_assets.app.progress import Progress, duration
from mechinterp_assets.app.run_progress import RunProgress, last_durations, root_cause
from mechinterp_assets.defs.checks import CHECK_STEP
from mechinterp_assets.storage.home import HOME_VARIABLE, dagster_folder, home
from mechinterp_assets.studies.study import Study

_log = logging.getLogger(__name__)

INSTANCE_TEMPLATE = Path(__file__).parent / "dagster.yaml"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
_NO_COMPUTE_LOGS = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


def prepare_instance_folder() -> Path:
    """DAGSTER_HOME of this project, with its dagster.yaml; also set for child processes."""
    folder = dagster_folder()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        shutil.copyfile(INSTANCE_TEMPLATE, settings)
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ[HOME_VARIABLE] = str(home())
    return folder


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The instance that the UI shows, for runs in this process.

    What steps print goes to the terminal alone: Dagster would send it through processes of its own,
    which an interruption from the keyboard ends with tracebacks.
    """
    reference = InstanceRef.from_dir(
        str(prepare_instance_folder()), overrides={"compute_logs": _NO_COMPUTE_LOGS}
    )
    with dg.DagsterInstance.from_ref(reference) as opened:
        yield opened


class StudyFailedError(RuntimeError):
    """A stage of a study failed; the message names the asset or check and its error."""


def materialize_study(
    definitions: dg.Definitions,
    study: Study,
    on_instance: dg.DagsterInstance,
    progress: Progress | None = None,
) -> Iterator[dg.ExecuteInProcessResult]:
    """Run every stage of a study in order and yield each stage's result.

    Per-study assets that need no SAE come first, then all per-layer assets in one run over the
    study's layers, then per-study assets that read them.

    Args:
        definitions: of the code location.
        study: the study.
        on_instance: where runs are recorded.
        progress: told what runs; None for silence.

    Raises:
        StudyFailedError: a stage failed; what earlier stages published stays.
        KeyboardInterrupt: the stage was interrupted; its run is on record as failed.
    """
    folder = Path(on_instance.root_directory)
    for run_id in close_killed_runs(on_instance, folder):
        _log.warning("run %s was killed: closed it, its slots are free", run_id)
    for pool, runs in runs_in_the_way(on_instance).items():
        _log.warning("pool %s is taken by %s: waiting for its turn", pool, ", ".join(runs))
    stages = [
        (definitions.resolve_job_def(name), tags)
        for name, tags in (
            ("study_foundations", {"dagster/partition": study.study}),
            ("study_layers", {RANGE_START: study.sites[0], RANGE_END: study.sites[-1]}),
            ("study_overviews", {"dagster/partition": study.study}),
        )
    ]
    watch = None if progress is None else _announce(stages, study, on_instance, progress)
    for job, tags in stages:
        run_id = str(uuid.uuid4())
        watching = nullcontext() if watch is None else watch.watching(on_instance, run_id)
        with living_process(folder) as process, watching:
            result = job.execute_in_process(
                instance=on_instance,
                partition_key=tags.get("dagster/partition"),
                tags=tags | process,
                run_config={"loggers": {"console": {}}},  # the short one of the code location
                raise_on_error=False,
                run_id=run_id,
            )
        if _was_interrupted(result):
            raise KeyboardInterrupt
        if not result.success:
            raise StudyFailedError(_why(job.name, study, result))
        yield result


# ---- private -------------------------------------------------------------------------------------


def _announce(
    stages: Sequence[tuple[dg.JobDefinition, dict[str, str]]],
    study: Study,
    on_instance: dg.DagsterInstance,
    progress: Progress,
) -> RunProgress:
    """Say what will run, and about how long."""
    steps = {
        job.name: [n.name for n in job.nodes_in_topological_order if CHECK_STEP not in n.tags]
        for job, _ in stages
    }
    every = [step for names in steps.values() for step in names]
    expected = last_durations(on_instance, [tags for _, tags in stages])
    total = sum(expected.get(step, 0.0) for step in every)
    new = [step for step in every if step not in expected]
    progress.say(
        f"study {study.study}: {len(every)} steps in {len(stages)} runs"
        + (f", about {duration(total)} by earlier runs" if expected else "")
        + (f" without {len(new)} steps that are new here" if expected and new else "")
    )
    for job, tags in stages:
        partitions = study.sites if RANGE_START in tags else [study.study]
        progress.say(f"  {job.name} for {', '.join(partitions)}: {', '.join(steps[job.name])}")
    return RunProgress(progress, every, expected)


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Dagster turns Ctrl-C into a failure of the run."""
    causes = [
        getattr(event.event_specific_data, "error", None)
        for event in result.all_events
        if event.is_failure
    ]
    interruption = dg.DagsterExecutionInterruptedError.__name__
    return any(cause is not None and cause.cls_name == interruption for cause in causes)


def _why(job_name: str, study: Study, result: dg.ExecuteInProcessResult) -> str:
    lines = [f"{job_name} of {study.study} failed (run {result.run_id}):"]
    for check in result.get_asset_check_evaluations():
        if not check.passed:
            lines.append(f"  check {check.check_name} of {check.asset_key.to_user_string()} failed")
    for event in result.filter_events(lambda e: e.is_step_failure):
        lines.append(f"  {event.step_key}: {root_cause(event.step_failure_data.error)}")
    return "\n".join(lines)
