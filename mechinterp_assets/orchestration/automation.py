"""Reruns by Dagster's daemon: a condition that is true of what is stale and can be started.

Belongs here: the condition, and how often the same thing is asked for. Does not belong here: what
is stale (sql/catalog.sql), the order (plan.py), sensors and schedules (defs/automation.py).

A study takes part where its file says `automation: true`. A partition is requested once for what
makes it stale. A run that fails leaves it stale for the same reasons, so it is not requested again
until these change. A run that was killed is finished, twice at most; Dagster itself tries first.
"""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView

from mechinterp_assets.orchestration.failed_checks import failed_checks
from mechinterp_assets.orchestration.killed_runs import close_killed_runs, living_runs
from mechinterp_assets.orchestration.plan import StudyGraph, Unit, ready_units
from mechinterp_assets.orchestration.reconciling import report_published
from mechinterp_assets.orchestration.shape import SHAPES, steps_by_table
from mechinterp_assets.staleness.asked_for import observe
from mechinterp_assets.staleness.reasons import Reason, reasons
from mechinterp_assets.storage.home import lake_folder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.studies.registry import load_registry
from mechinterp_assets.studies.study import Study

TIMES_FINISHED = 2


@dataclass(frozen=True)
class Wanted:
    """What can be started of the studies that rerun by themselves.

    reasons: unit -> what it is stale for, as one text; of all stale units that nobody is at work
    on. ready: those that can be started. killed: unit -> the killed run that left it begun.
    at_work: units that Dagster is to make already.
    """

    reasons: Mapping[Unit, str] = field(default_factory=dict)
    ready: frozenset[Unit] = frozenset()
    killed: Mapping[Unit, str] = field(default_factory=dict)
    at_work: frozenset[Unit] = frozenset()


def wanted(
    lake: Lake,
    instance: dg.DagsterInstance,
    studies: Mapping[str, Study],
    at_work: Collection[Unit] = (),
) -> Wanted:
    """Look at study files, lake and runs.

    at_work: units that runs or backfills of Dagster are to make, begun or not.
    """
    killed_now = close_killed_runs(instance, Path(instance.root_directory))
    observe(lake, studies.values())
    begun = lake.begun()
    runs = {one.run_id for one in begun}
    alive = living_runs(instance, runs)
    report_published(instance, lake, {*killed_now, *(runs - alive)})
    why: dict[Unit, str] = {}
    ready: set[Unit] = set()
    killed: dict[Unit, str] = {}
    for study in studies.values():
        if not study.automation:
            continue
        graph = StudyGraph(study, studies)
        pending = graph.pending(reasons(lake, study.study))
        by_run = {unit: one.run_id for one in begun if (unit := graph.unit_of(one.place))}
        busy = {unit for unit, run in by_run.items() if run in alive} | set(at_work)
        killed |= {unit: run for unit, run in by_run.items() if run not in alive}
        why |= {unit: _fingerprint(many) for unit, many in pending.items() if unit not in busy}
        can_start = ready_units(graph, pending, busy)
        read = {one for unit in can_start for one in graph.inputs(unit)} - pending.keys()
        failed = failed_checks(lake, graph, sorted(read)) if can_start else {}
        ready |= set(ready_units(graph, pending, busy | failed.keys()))
    return Wanted(why, frozenset(ready), killed, frozenset(at_work))


@dataclass(frozen=True)
class Asked:
    """What was requested of one partition: for which reasons, the killed run that was seen, and
    how often it was requested to be finished."""

    reasons: str
    killed: str = ""
    finished: int = 0


def next_requests(
    now: Wanted, units: Mapping[str, Unit], before: Mapping[str, Asked]
) -> tuple[list[str], dict[str, Asked]]:
    """Partitions to request, and what was asked for by then.

    Args:
        now: what is stale.
        units: by partition, all of an asset.
        before: what was asked for until now, by partition.
    """
    requested: list[str] = []
    after: dict[str, Asked] = {}
    for key, unit in units.items():
        asked, why = before.get(key), now.reasons.get(unit)
        if why is None:
            if unit in now.at_work and asked is not None:
                after[key] = asked
            continue
        killed = now.killed.get(unit, "")
        # A killed run is only acted upon when it is seen again: Dagster's own retry comes first.
        settled = not killed or (asked is not None and asked.killed == killed)
        asked = asked or Asked("")
        new = None
        if unit in now.ready and settled:
            if asked.reasons != why:
                new = Asked(why, killed)
            elif killed and asked.finished < TIMES_FINISHED:
                new = Asked(why, "", asked.finished + 1)
        if new is not None:
            requested.append(key)
        after[key] = new or Asked(asked.reasons, killed, asked.finished)
    return requested, after


class StaleAndReady(dg.AutomationCondition[dg.AssetKey]):
    """True once of a partition that is stale, when what it is made from is fresh."""

    @property
    def name(self) -> str:
        """What the UI calls the condition."""
        return "stale_and_ready"

    @property
    def description(self) -> str:
        """What the UI says of it."""
        return "stale for reasons it was not requested for before, and what it reads is fresh"

    @property
    def requires_cursor(self) -> bool:
        """It remembers what it has asked for."""
        return True

    async def evaluate(  # type: ignore[override]  # Dagster awaits it, its types do not say so
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Request what is stale, can be started, and is not running or queued."""
        view, key = context.asset_graph_view, context.key
        assert context.partitions_def is not None
        now = await _looked(view, context.evaluation_id)
        step = steps_by_table()[key.path[-1]]
        keys = context.candidate_subset.expensively_compute_partition_keys()
        units = {one: Unit(step, one) for one in sorted(keys)}
        before = {one: Asked(*asked) for one, asked in json.loads(context.cursor or "{}").items()}
        requested, after = next_requests(now, units, before)
        subset = view.get_subset_from_partition_keys(key, context.partitions_def, set(requested))
        cursor = {one: [a.reasons, a.killed, a.finished] for one, a in sorted(after.items())}
        return dg.AutomationResult(context, subset, cursor=json.dumps(cursor))


# ---- private -------------------------------------------------------------------------------------


# The look that is shared by the evaluations of all assets at one tick, by what it is of.
_SHARED: dict[object, "asyncio.Task[Wanted]"] = {}


async def _looked(view: AssetGraphView, evaluation: int) -> Wanted:
    """What one evaluation of all assets goes by."""
    tick = (id(asyncio.get_running_loop()), evaluation, view.effective_dt)
    if tick not in _SHARED:
        _SHARED.clear()
        _SHARED[tick] = asyncio.ensure_future(_look(view))
    return await _SHARED[tick]


async def _look(view: AssetGraphView) -> Wanted:
    at_work: set[Unit] = set()
    for shape in SHAPES.values():
        key = dg.AssetKey(shape.tables[0])
        every = view.get_full_subset(key=key)
        for compute in (
            view.compute_run_in_progress_subset,
            view.compute_backfill_in_progress_subset,
        ):
            found = await compute(key=key, from_subset=every)
            at_work |= {Unit(shape.name, one) for one in found.expensively_compute_partition_keys()}
    return wanted(Lake(lake_folder()), view.instance, load_registry().studies, at_work)


def _fingerprint(many: list[Reason]) -> str:
    keys = sorted(reason.key for reason in many if reason.cause != "unfinished")
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
