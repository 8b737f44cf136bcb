"""The registry of published experiments, and choosing their interventions for a model.

Belongs here: the list of experiments and the frame intervention_experiments. Does not belong here:
what an experiment consists of (published_k24.py, published_fc24.py) and running.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import polars as pl

from mechinterp_assets.interventions.experiment_context import (
    Chosen,
    ExperimentContext,
    NothingToRun,
)
from mechinterp_assets.interventions.published_experiment import Published
from mechinterp_assets.interventions.published_fc24 import FC24_EXPERIMENTS
from mechinterp_assets.interventions.published_k24 import K24_EXPERIMENTS
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.terms import InterventionError

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


def choose_published(
    names: Sequence[str] | Literal["all"],
    context: ExperimentContext,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[Planned], pl.DataFrame]:
    """Interventions of the named experiments, each once, and the frame intervention_experiments.

    An experiment that there is nothing to run for has one row without an intervention, whose
    chosen_by says why. `note` is told of each experiment.
    """
    planned: dict[str, Planned] = {}
    rows: list[dict[str, object]] = []
    for experiment in published_experiments(names):
        shared = {
            "task": "ioi",
            "experiment": experiment.name,
            "paper": experiment.source,
            "question": experiment.question,
        }
        try:
            chosen: list[Chosen] = experiment.choose(context)
        except NothingToRun as reason:
            rows.append({**shared, "chosen_by": f"not run: {reason}"})
            note(f"{experiment.name}: not run: {reason}")
            continue
        for one in chosen:
            planned.setdefault(one.planned.id, one.planned)
            rows.append(
                {
                    **shared,
                    "intervention": one.planned.id,
                    "part": one.part,
                    "chosen_by": one.chosen_by,
                }
            )
        note(f"{experiment.name}: {len(chosen)} interventions")
    return list(planned.values()), pl.DataFrame(rows, schema=EXPERIMENTS_SCHEMA)
