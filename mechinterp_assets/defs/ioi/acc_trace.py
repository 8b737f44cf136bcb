"""Traces by ACC and ACC++, beside those by FC24's rule (circuit_trace.py), task by task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.defs.tasks.prompts_of import NoPromptsError, base_prompts
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from mechinterp_assets.circuits.score_model import ScoreModel

TABLES = ("acc_pairs", "acc_edges")


@tables(
    *TABLES,
    reads=["language_model", "ioi_prompts", "task_prompts", "trace_roots"],
    settings=[
        *("ioi.tracers", "ioi.tracer_seeds", "ioi.tracer_prompts", "ioi.firing_threshold"),
        *("ioi.contribution_fraction", "tasks.traced"),
    ],
    seed="ioi.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["activations"],
)
def acc_trace(run: Run) -> Iterator[Made]:
    """ACC and ACC++ upstream from the same root pairs, with the token that each head read."""
    from mechinterp_assets.circuits.acc_trace import acc_batches
    from mechinterp_assets.circuits.errors import CircuitError
    from mechinterp_assets.circuits.score_model import ScoreModel

    settings = run.study.ioi
    rules = list(settings.tracers)
    frames: dict[str, list[pl.DataFrame]] = {
        name: [none] for name, none in run.no_rows(*TABLES).items()
    }
    error = 0.0
    try:
        model = ScoreModel(run.model)
        for start in _starts(run, model) if rules else ():
            for parts in acc_batches(
                run.model,
                start.prompts,
                start.seeds,
                rules,
                firing_threshold=settings.firing_threshold,
                contribution_fraction=settings.contribution_fraction,
                score_model=model,
            ):
                for trace in parts.values():
                    for name, frame in zip(TABLES, (trace.pairs, trace.edges), strict=True):
                        frames[name].append(frame.with_columns(task=pl.lit(start.task)))
                    error = max([error, *trace.pairs["terms_error"].to_list()])
    except CircuitError as reason:  # the model's scores are no such sums
        yield run.nothing(str(reason), *TABLES)
        return
    yield run.made(
        {name: pl.concat(parts, how="diagonal") for name, parts in frames.items()},
        {"acc_pairs": {"largest_terms_error": error}},
    )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Start:
    """Prompts of a task and the pairs at which their traces begin."""

    task: str
    prompts: pl.DataFrame
    seeds: pl.DataFrame


def _starts(run: Run, model: ScoreModel) -> Iterator[_Start]:
    from mechinterp_assets.circuits.acc_seeds import seeds_by_log_p, seeds_of_roots
    from mechinterp_assets.circuits.trace import Root

    settings = run.study.ioi
    all_roots = run.frame("trace_roots").filter(pl.col("head").is_not_null())
    for task in run.study.tasks.traced:
        try:
            prompts = base_prompts(run, task).head(settings.tracer_prompts)
        except NoPromptsError as reason:
            run.log.warning(f"{task} is not traced: {reason}")
            continue
        known = all_roots.filter(pl.col("task") == task)
        if settings.tracer_seeds == "log_p":
            seeds = seeds_by_log_p(run.model, prompts, score_model=model)
        elif known.is_empty():
            run.log.warning(
                f"{task} is not traced by {', '.join(settings.tracers)}: it has no roots; "
                "ioi.tracer_seeds: log_p needs none"
            )
            continue
        else:
            roots = [Root(*row) for row in known.select("layer", "head", "source_role").rows()]
            seeds = seeds_of_roots(prompts, roots)
        yield _Start(task, prompts, seeds)
