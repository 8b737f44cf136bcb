"""The registry of published experiments, and choosing their interventions for a model.

Belongs here: the list of experiments and the frame intervention_experiments. Does not belong here:
what an experiment consists of (published_k24.py, published_fc24.py) and running.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import polars as pl

from mechinterp_assets.interventions.experiment_context import (
    Chosen,
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.plan import Plan, fitting, left_out, plan_rows
from mechinterp_assets.interventions.published_experiment import Published
from mechinterp_assets.interventions.published_fc24 import FC24_EXPERIMENTS
from mechinterp_assets.interventions.published_k24 import K24_EXPERIMENTS
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import InterventionError

IOI = "ioi"  # the task of all of them

PUBLISHED: dict[str, Published] = {one.name: one for one in (*K24_EXPERIMENTS, *FC24_EXPERIMENTS)}

EXPERIMENTS_SCHEMA = {
    "task": pl.String,
    "experiment": pl.String,
    "paper": pl.String,
    "question": pl.String,
    "intervention": pl.String,
    "part": pl.String,
    "chosen_by": pl.String,
}


def published_experiments(names: Sequence[str] | Literal["all"]) -> list[Published]:
    """The experiments of these names, in the registry's order. Raises InterventionError."""
    if names == "all":
        return list(PUBLISHED.values())
    if unknown := [name for name in names if name not in PUBLISHED]:
        raise InterventionError(
            f"unknown published experiment {unknown[0]!r}; one of {', '.join(PUBLISHED)}, or all"
        )
    return [one for name, one in PUBLISHED.items() if name in names]


@dataclass(frozen=True)
class PublishedPlan:
    """What of published experiments is run.

    runs: interventions that several experiments may need, each once. experiments: frame
    intervention_experiments. rows: of the frame intervention_plan.
    """

    runs: tuple[Planned, ...]
    experiments: pl.DataFrame
    rows: list[dict[str, str | None]]


def choose_published(
    names: Sequence[str] | Literal["all"],
    context: ExperimentContext,
    note: Callable[[str], None] = lambda text: None,
) -> PublishedPlan:
    """Interventions of the named experiments for this model, as far as it can run them.

    An experiment that there is nothing to run for has one row without an intervention, whose
    chosen_by says why. `note` is told of each experiment.
    """
    runs: dict[str, Planned] = {}
    rows: list[dict[str, object]] = []
    plans: list[dict[str, str | None]] = []
    for experiment in published_experiments(names):
        asked_by = f"interventions.published.{experiment.name}"
        shared = {
            "task": IOI,
            "experiment": experiment.name,
            "paper": experiment.source,
            "question": experiment.question,
        }
        try:
            chosen, plan = _fitting(experiment, context)
        except NothingToRun as reason:
            rows.append({**shared, "chosen_by": f"not run: {reason}"})
            plans.append(left_out(str(reason), task=IOI, asked_by=asked_by))
            note(f"{experiment.name}: not run: {reason}")
            continue
        plans += plan_rows(plan, context.shape, task=IOI, asked_by=asked_by)
        for one in chosen:
            runs.setdefault(one.planned.id, one.planned)
            rows.append(
                {
                    **shared,
                    "intervention": one.planned.id,
                    "part": one.part,
                    "chosen_by": one.chosen_by,
                }
            )
        note(f"{experiment.name}: {len(plan.runs)} interventions")
    listed = pl.DataFrame(rows, schema=EXPERIMENTS_SCHEMA)
    return PublishedPlan(tuple(runs.values()), listed, plans)


def _fitting(experiment: Published, context: ExperimentContext) -> tuple[list[Chosen], Plan]:
    """What an experiment chooses and can be run. Raises NothingToRun where nothing can."""
    chosen = experiment.choose(context)
    plan = fitting(list({one.planned.id: one.planned for one in chosen}.values()), context.check)
    if not plan.runs:
        _, reason = plan.left_out[0]
        raise NothingToRun(reason)
    refused = plan.reasons
    return [one for one in chosen if one.planned.id not in refused], plan
