"""Materialize in this process what is stale of a study.

Belongs here: the runs, one after the other, and the Dagster instance they are recorded in, so that
a command line and the UI see the same runs. Does not belong here: what is stale (staleness/), which
run comes next (orchestration/plan.py), lines of progress (run_progress.py).
"""

import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from mechinterp_assets.app.dagster_databases import check_databases, damage_told
from mechinterp_assets.app.in_process_runs import FinishedRun, execute
from mechinterp_assets.app.mistakes import nearest
from mechinterp_assets.app.progress import Progress
from mechinterp_assets.app.run_progress import RunProgress, last_durations, root_cause
from mechinterp_assets.orchestration.failed_checks import failed_checks
from mechinterp_assets.orchestration.killed_runs import (
    close_killed_runs,
    living_process,
    living_runs,
    runs_in_the_way,
)
from mechinterp_assets.orchestration.partitions import partition_tags
from mechinterp_assets.orchestration.plan import PlannedRun, StudyGraph, Unit, next_run
from mechinterp_assets.orchestration.reconciling import report_published
from mechinterp_assets.orchestration.registry import STUDIES
from mechinterp_assets.staleness.asked_for import observe
from mechinterp_assets.staleness.reasons import Reason, reasons
from mechinterp_assets.storage.home import HOME_VARIABLE, dagster_folder, home
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.study import Study

_log = logging.getLogger(__name__)

INSTANCE_TEMPLATE = Path(__file__).parent / "dagster.yaml"
STUDY_TAG = "mechinterp/study"
_LOOK_EVERY_SECONDS = 1.0
_NO_COMPUTE_LOGS = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


def prepare_instance_folder() -> Path:
    """DAGSTER_HOME of this project, with its dagster.yaml; also set for child processes.

    Raises Mistake where one of Dagster's databases there is damaged.
    """
    folder = dagster_folder()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        shutil.copyfile(INSTANCE_TEMPLATE, settings)
    check_databases(folder)
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ[HOME_VARIABLE] = str(home())
    return folder


@contextmanager
def instance() -> Iterator[dg.DagsterInstance]:
    """The instance that the UI shows, for runs in this process.

    What steps print goes to the terminal alone: Dagster would send it through processes of its own,
    which an interruption from the keyboard ends with tracebacks.
    """
    folder = prepare_instance_folder()
    reference = InstanceRef.from_dir(str(folder), overrides={"compute_logs": _NO_COMPUTE_LOGS})
    with damage_told(folder), dg.DagsterInstance.from_ref(reference) as opened:
        yield opened


class StudyFailedError(RuntimeError):
    """A run of a study failed; the message names the asset or check and its error."""


class BlockedError(StudyFailedError):
    """What is left is made from tables that failed a check; the message names checks and remedy."""


class Materializer:
    """Makes what is stale of a study, run by run, until nothing is.

    Args:
        definitions: of the code location.
        study: the study.
        lake: where its tables are.
        on_instance: where runs are recorded.
        only: names of groups, tables or steps; what these need is made with them.
        everything: make what is fresh again too.
        studies: all studies.

    Raises:
        ValueError: a name in `only` that nothing has.
    """

    def __init__(
        self,
        definitions: dg.Definitions,
        study: Study,
        lake: Lake,
        on_instance: dg.DagsterInstance,
        *,
        only: Iterable[str] = (),
        everything: bool = False,
        studies: Mapping[str, Study] = STUDIES,
    ) -> None:
        self._study, self._lake, self._instance = study, lake, on_instance
        self._studies, self._everything = studies, everything
        self._job = definitions.resolve_implicit_global_asset_job_def()
        self.graph = StudyGraph(study, studies)
        self._wanted = self._named(only)
        self._made: set[Unit] = set()

    def pending(self) -> dict[Unit, list[Reason]]:
        """What is to be made, and why, as of now."""
        observe(self._lake, self._studies.values())
        stale = self.graph.pending(reasons(self._lake, self._study.study))
        if self._everything:
            again = Reason("asked", "made again as asked (--all)")
            asked = [unit for unit in self.graph.units if unit not in self._made]
            stale = {
                unit: stale.get(unit, []) + ([again] if unit in asked else [])
                for unit in self.graph.units
                if unit in stale or unit in asked
            }
        if self._wanted is None:
            return stale
        named = {unit for unit in self.graph.units if unit.step in self._wanted}
        needed = named.union(*(self.graph.ancestors(unit) for unit in named))
        return {
            unit: why
            for unit, why in stale.items()
            if unit in named or (unit in needed and any(r.cause != "asked" for r in why))
        }

    def run_all(self, progress: Progress | None = None) -> Iterator[FinishedRun]:
        """Run what is pending and yield each run's result.

        Raises:
            StudyFailedError: a run failed; what was published before stays. Or something is stale
                again right after it was made, or made from what failed a check.
            KeyboardInterrupt: a run was interrupted; it is on record as failed.
        """
        folder = Path(self._instance.root_directory)
        killed = close_killed_runs(self._instance, folder)
        for run_id in killed:
            _log.warning("run %s was killed: closed it, its slots are free", run_id)
        report_published(self._instance, self._lake, killed)
        for pool, runs in runs_in_the_way(self._instance).items():
            _log.warning("pool %s is taken by %s: waiting for its turn", pool, ", ".join(runs))
        watch = None if progress is None else self._watch(progress)
        waited = False
        while pending := self.pending():
            busy = self._busy()
            failed = failed_checks(self._lake, self.graph, self._read_by(pending))
            planned = next_run(self.graph, pending, {*busy, *failed})
            if planned is None:
                if not busy:
                    raise BlockedError(_blocked(failed))
                if progress is not None and not waited:
                    others = ", ".join(sorted(set(busy.values())))
                    progress.say(f"waiting: run {others} is at work on what is left")
                waited = True
                time.sleep(_LOOK_EVERY_SECONDS)
                continue
            waited = False
            for unit in planned.units:
                if unit in self._made:
                    why = "; ".join(reason.words for reason in pending[unit])
                    raise StudyFailedError(
                        f"{unit.step} of {unit.partition} is stale again right after it was made: "
                        f"{why}; is something else at work on the same study?"
                    )
            if watch is not None:
                later = {unit.step for unit in pending if unit not in set(planned.units)}
                watch.expect(planned.steps, sorted(later))
            yield self._run(planned, watch)
            self._made |= set(planned.units)

    # ---- private ---------------------------------------------------------------------------------

    def _read_by(self, pending: Mapping[Unit, list[Reason]]) -> list[Unit]:
        """What pending units read and is neither to be made again nor was made, and so checked, in
        a run of this command."""
        read = set().union(*(self.graph.inputs(unit) for unit in pending))
        return [one for one in self.graph.units if one in read - pending.keys() - self._made]

    def _busy(self) -> dict[Unit, str]:
        """Units that other runs are making now, with the run."""
        begun = self._lake.begun()
        alive = living_runs(self._instance, {one.run_id for one in begun})
        return {
            unit: one.run_id
            for one in begun
            if one.run_id in alive and (unit := self.graph.unit_of(one.place)) is not None
        }

    def _named(self, only: Iterable[str]) -> set[str] | None:
        names = list(only)
        if not names:
            return None
        found: set[str] = set()
        for name in names:
            steps = self.graph.steps_of(name)
            if not steps:
                shapes = self.graph.shapes.values()
                known = sorted({n for shape in shapes for n in (shape.group, *shape.tables)})
                raise ValueError(f"no group or table {name!r}; {nearest(name, known)}")
            found |= steps
        return found

    def _run(self, planned: PlannedRun, watch: RunProgress | None) -> FinishedRun:
        tables = [table for step in planned.steps for table in self.graph.shapes[step].tables]
        first, last = planned.partitions[0], planned.partitions[-1]
        tags = {**partition_tags(first, last), STUDY_TAG: self._study.study}
        return run_tables(self._job, self._instance, tables, tags, watch)

    def _watch(self, progress: Progress) -> RunProgress:
        expected = last_durations(self._instance, {STUDY_TAG: self._study.study})
        return RunProgress(progress, expected)


def run_tables(
    job: dg.JobDefinition,
    on_instance: dg.DagsterInstance,
    tables: Iterable[str],
    tags: Mapping[str, str],
    watch: RunProgress | None = None,
) -> FinishedRun:
    """One run of some tables in this process. Raises as `Materializer.run_all` does."""
    run_id = str(uuid.uuid4())
    watching = nullcontext() if watch is None else watch.watching(on_instance, run_id)
    with living_process(Path(on_instance.root_directory)) as process, watching:
        result = execute(job, on_instance, run_id=run_id, tables=tables, tags={**tags, **process})
    if _was_interrupted(result):
        raise KeyboardInterrupt
    if not result.success:
        raise StudyFailedError(_why(tags.get(STUDY_TAG, "some tables"), result))
    return result


# ---- private -------------------------------------------------------------------------------------


def _blocked(failed: Mapping[Unit, str]) -> str:
    lines = ["the rest is made from tables that failed a check:"]
    lines += [f"  {why}" for why in failed.values()]
    steps = sorted({unit.step for unit in failed})
    lines.append(
        f"  make {', '.join(steps)} again when the cause is mended, or correct the bounds under"
        " `checks` in the study file"
    )
    return "\n".join(lines)


def _was_interrupted(result: FinishedRun) -> bool:
    """Dagster turns Ctrl-C into a failure of the run."""
    causes = [
        getattr(event.event_specific_data, "error", None)
        for event in result.events
        if event.is_failure
    ]
    interruption = dg.DagsterExecutionInterruptedError.__name__
    return any(cause is not None and cause.cls_name == interruption for cause in causes)


def _why(study: str, result: FinishedRun) -> str:
    lines = [f"a run of {study} failed (run {result.run_id}):"]
    lines += [
        f"  check {check.check_name} of {check.asset_key.to_user_string()} failed"
        for check in result.checks
        if not check.passed and check.severity == dg.AssetCheckSeverity.ERROR
    ]
    lines += [
        f"  {event.step_key}: {root_cause(event.step_failure_data.error)}"
        for event in result.events
        if event.is_step_failure
    ]
    return "\n".join(lines)
