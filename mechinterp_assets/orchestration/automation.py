"""Reruns by Dagster's daemon: a condition that is true of what is stale and can be started.

Belongs here: the condition, and how often the same thing is asked for. Does not belong here: what
is stale (sql/catalog.sql), the order (plan.py), sensors and schedules (defs/automation.py).

A study takes part where its file says `automation: true`. A partition is requested once for what
makes it stale. A run that fails leaves it stale for the same reasons, so it is not requested again
until these change. A run that was killed is finished, twice at most; Dagster itself tries first.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import dagster as dg

from mechinterp_assets.orchestration.killed_runs import close_killed_runs
from mechinterp_assets.orchestration.plan import StudyGraph, Unit, ready_units
from mechinterp_assets.orchestration.shape import SHAPES
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

    reasons: unit -> what it is stale for, as one text; of all stale units. ready: those that can be
    started. killed: unit -> the killed run that left it begun.
    """

    reasons: Mapping[Unit, str] = field(default_factory=dict)
    ready: frozenset[Unit] = frozenset()
    killed: Mapping[Unit, str] = field(default_factory=dict)


def wanted(lake: Lake, instance: dg.DagsterInstance, studies: Mapping[str, Study]) -> Wanted:
    """Look at study files, lake and runs."""
    close_killed_runs(instance, Path(instance.root_directory))
    observe(lake, studies.values())
    why: dict[Unit, str] = {}
    ready: set[Unit] = set()
    killed: dict[Unit, str] = {}
    runs = {one.run_id for one in lake.begun()}
    alive = {run for run in runs if _is_alive(instance, run)}
    for study in studies.values():
        if not study.automation:
            continue
        graph = StudyGraph(study, studies)
        pending = graph.pending(reasons(lake, study.study))
        busy: set[Unit] = set()
        for one in lake.begun():
            unit = graph.unit_of((one.table, one.partition))
            if unit is not None and one.run_id in alive:
                busy.add(unit)
            elif unit is not None:
                killed[unit] = one.run_id
        why |= {unit: _fingerprint(many) for unit, many in pending.items()}
        ready |= set(ready_units(graph, pending, busy))
    return Wanted(why, frozenset(ready), killed)


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
        units: by partition, those that may be requested.
        before: what was asked for until now, by partition.
    """
    requested: list[str] = []
    after: dict[str, Asked] = {}
    for key, unit in units.items():
        asked, why = before.get(key), now.reasons.get(unit)
        if why is None:
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

    async def evaluate(  # type: ignore[override]
        self, context: dg.AutomationContext[dg.AssetKey]
    ) -> dg.AutomationResult[dg.AssetKey]:
        """Request what is stale, can be started, and is not running or queued."""
        view, key = context.asset_graph_view, context.key
        now = _looked(view.instance, context.evaluation_id, context.evaluation_time.timestamp())
        every = context.candidate_subset
        running = (
            await view.compute_run_in_progress_subset(key=key, from_subset=every)
        ).compute_union(await view.compute_backfill_in_progress_subset(key=key, from_subset=every))
        step = next(s.name for s in SHAPES.values() if key.path[-1] in s.tables)
        at_work = running.expensively_compute_partition_keys()
        idle = every.expensively_compute_partition_keys() - at_work
        units = {one: Unit(step, one) for one in sorted(idle)}
        before = {one: Asked(*asked) for one, asked in json.loads(context.cursor or "{}").items()}
        requested, after = next_requests(now, units, before)
        after |= {one: before[one] for one in at_work if one in before}
        cursor = {one: [a.reasons, a.killed, a.finished] for one, a in sorted(after.items())}
        assert context.partitions_def is not None
        subset = view.get_subset_from_partition_keys(key, context.partitions_def, set(requested))
        return dg.AutomationResult(context, subset, cursor=json.dumps(cursor))


# ---- private -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _looked(instance: dg.DagsterInstance, evaluation: int, at: float) -> Wanted:
    """What one evaluation of all assets goes by."""
    lake = Lake(lake_folder())
    return wanted(lake, instance, load_registry().studies)


def _is_alive(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def _fingerprint(many: list[Reason]) -> str:
    keys = sorted(reason.key for reason in many if reason.cause != "unfinished")
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
