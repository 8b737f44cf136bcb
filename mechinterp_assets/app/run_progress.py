"""Progress of Dagster runs in this process: which step, how far, about how long.

Belongs here: turning a run's events into lines, and the durations of earlier runs into estimates.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster_shared.error import SerializableErrorInfo

from mechinterp_assets.app.progress import Progress, duration

# Runs that are looked through for a step's last duration.
_EARLIER_RUNS = 20


class RunProgress:
    """Lines about the steps of several runs, counted through.

    Args:
        progress: where lines go.
        expected: seconds that steps took when they last succeeded.
    """

    def __init__(self, progress: Progress, expected: Mapping[str, float]) -> None:
        self._progress = progress
        self._expected = expected
        self._lock = Lock()
        self._before = 0  # steps of earlier runs
        self._left_after: list[str] = []  # steps that other runs will make
        self._steps: list[str] = []
        self._started: dict[str, float] = {}
        self._ended: set[str] = set()

    def expect(self, steps: Sequence[str], others: Sequence[str]) -> None:
        """Say what the next run makes, and what is known to be left for others after it."""
        with self._lock:
            self._before += len(self._steps)
            self._steps, self._left_after = list(steps), list(others)
            self._started, self._ended = {}, set()

    @contextmanager
    def watching(self, instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
        """Write what happens in the run, which this process executes within the block."""
        instance.add_event_listener(run_id, self._take)
        with self._progress.doing(self._now):
            yield

    def _take(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if int(entry.level) >= logging.INFO:  # what the console shows
                self._progress.heard(entry.user_message)
            return
        step = event.step_key or ""
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._say_of_check(event.asset_check_evaluation_data)
        elif step not in self._steps:
            self._take_of_check_step(event)
        elif event.event_type == dg.DagsterEventType.STEP_START:
            with self._lock:
                self._started[step] = time.monotonic()
            about = f", about {duration(self._expected[step])}" if step in self._expected else ""
            self._progress.say(f"{self._count(step)} started{about}")
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            self._progress.say(f"{self._count(step)} done in {self._end(step)}{self._left()}")
        elif event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY:
            self._progress.say(
                f"{self._count(step)} failed after {self._end(step)} and is tried again: "
                f"{root_cause(event.step_retry_data.error)}"
            )
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            self._progress.say(
                f"{self._count(step)} FAILED after {self._end(step)}: "
                f"{root_cause(event.step_failure_data.error)}"
            )

    def _take_of_check_step(self, event: dg.DagsterEvent) -> None:
        """Say why a step of checks could not run; breaches were said one by one."""
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            error = event.step_failure_data.error
            if error is None or error.cls_name != DagsterAssetCheckFailedError.__name__:
                self._progress.say(f"{event.step_key} FAILED: {root_cause(error)}")

    def _say_of_check(self, check: dg.AssetCheckEvaluation) -> None:
        if check.passed:
            return
        table = check.asset_key.to_user_string()
        of = table if check.partition is None else f"{table} of {check.partition}"
        verdict = "FAILED" if check.severity == dg.AssetCheckSeverity.ERROR else "warns"
        self._progress.say(f"check {check.check_name} of {of} {verdict}: {check.description}")

    def _count(self, step: str) -> str:
        """`3/74 step`."""
        with self._lock:
            number = list(self._started).index(step) + 1 if step in self._started else 0
            total = self._before + len(self._steps) + len(self._left_after)
            return f"{self._before + number}/{total} {step}"

    def _end(self, step: str) -> str:
        """Note that a step has ended; how long it took."""
        with self._lock:
            self._ended.add(step)
        return self._elapsed(step)

    def _elapsed(self, step: str) -> str:
        now = time.monotonic()
        with self._lock:
            return duration(now - self._started.get(step, now))

    def _left(self) -> str:
        """How long the rest takes, if all of it has run before."""
        with self._lock:
            rest = [step for step in self._steps if step not in self._ended] + self._left_after
        if not rest or any(step not in self._expected for step in rest):
            return ""
        return f"; about {duration(sum(self._expected[step] for step in rest))} left"

    def _now(self) -> str:
        """What runs, and for how long."""
        with self._lock:
            running = [step for step in self._started if step not in self._ended]
            done = self._before + len(self._ended)
        if not running:
            return f"{done} steps done; Dagster prepares the next"
        return ", ".join(f"{self._count(one)}: {self._elapsed(one)} so far" for one in running)


def last_durations(instance: dg.DagsterInstance, tags: Mapping[str, str]) -> dict[str, float]:
    """Seconds that steps took when they last succeeded in a finished run with these tags."""
    seconds: dict[str, float] = {}
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], tags=dict(tags))
    for run in instance.get_runs(filters, limit=_EARLIER_RUNS):
        for step in instance.get_run_step_stats(run.run_id):
            if step.start_time and step.end_time:
                seconds.setdefault(step.step_key, step.end_time - step.start_time)
    return seconds


def root_cause(error: SerializableErrorInfo | None) -> str:
    """What the assets' own error says, which Dagster wraps in others."""
    while error is not None and error.cause and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error.message.strip() if error is not None and error.message else "unknown error"
