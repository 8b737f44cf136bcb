"""What happens when activations are changed, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.tasks.prompts_of import prompts_of
from mechinterp_assets.orchestration.artefacts import open_saes
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES, head_roles
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import GPU, tables

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterator

    from mechinterp_assets.interventions.sets import Planned
    from mechinterp_assets.sae.base import SparseAutoencoder

IOI, BASE, REFERENCE = "ioi", "base", "ABC"


@dataclass(frozen=True)
class _Batch:
    """Interventions that are run on the same prompts of a task; `where` they were asked for."""

    where: str
    task: str
    interventions: list[Planned]
    limit: int
    variant: str = BASE
    reference_variant: str = REFERENCE


@tables(
    "intervention_results",
    "intervention_sets",
    "intervention_experiments",
    reads=[
        "language_model",
        "ioi_prompts",
        "task_prompts",
        "ioi_trace_edges",
        "ioi_trace_graph",
        *SCORE_TABLES,
        "attention_sae",
    ],
    settings=["interventions"],
    seed="interventions.seed",
    pool=GPU,
    kinds=["torch"],
    needs=["processed_weights"],
)
def interventions(run: Run) -> Made:
    """Ablation of every head, edits of traced edges, published experiments and the study's own.

    Everything is planned for the model at hand before anything runs.
    """
    from mechinterp_assets.interventions.runner import intervention_sets

    prompts, edges = run.frame("ioi_prompts"), _traced(run, IOI)
    batches = [*_by_default(run, prompts, edges), *_own(run)]
    saes = _needed_saes(run, batches)
    chosen, listed = _published(run, prompts, edges, saes)
    batches.append(_not_run_yet(run, chosen, batches))
    planned: dict[str, list[Planned]] = {IOI: []}
    for batch in batches:
        _add(planned.setdefault(batch.task, []), batch)
    results = pl.concat(_results(run, batch, saes) for batch in batches if batch.interventions)
    changed = results.filter(pl.col("metric") == "logit_diff").select(
        "kind", effect=pl.col("patched") - pl.col("clean")
    )
    drops = changed.group_by("kind").agg(pl.col("effect").min()).sort("kind")
    return run.made(
        {
            "intervention_results": results,
            "intervention_sets": pl.concat(
                intervention_sets(batch.interventions, batch.task, batch.reference_variant)
                for batch in batches
            ),
            "intervention_experiments": listed,
        },
        {
            "intervention_results": {
                "interventions": float(results["intervention"].n_unique()),
                **{f"largest_drop_{kind}": float(value) for kind, value in drops.iter_rows()},
            }
        },
    )


@tables(
    "intervention_summary",
    reads=["intervention_results"],
    settings=["interventions.bootstrap", "interventions.seed"],
)
def intervention_summary(run: Run) -> Made:
    """Mean effects with bootstrap intervals over prompts, beside those of the random controls."""
    from mechinterp_assets.interventions.summary import intervention_summary as summarise

    settings = run.study.interventions
    summary = summarise(
        run.frame("intervention_results"), n_bootstrap=settings.bootstrap, seed=settings.seed
    )
    worst = summary.filter(pl.col("metric") == "logit_diff").sort("mean_effect").head(20)
    return run.made(
        {"intervention_summary": summary},
        {
            "intervention_summary": {
                "twenty_most_harmful": dg.MetadataValue.md(
                    f"![effects]({tiny_bar_chart((-worst['mean_effect']).to_list())})"
                )
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _by_default(run: Run, prompts: pl.DataFrame, edges: pl.DataFrame) -> Iterator[_Batch]:
    """Every head ablated, and the edges edited that are heaviest on the prompts that are run."""
    from mechinterp_assets.interventions.edge_choice import edge_interventions, heaviest_edges
    from mechinterp_assets.interventions.kinds.head_ablation import head_ablations

    settings, shape = run.study.interventions, run.model.config
    if settings.head_ablations:
        ablations = head_ablations(shape.n_layers, shape.n_heads, modes=settings.head_ablations)
        yield _Batch("interventions.head_ablations", IOI, list(ablations), settings.prompts)
    on_these = edges.filter(pl.col("prompt").is_in(_base(prompts, settings.prompts).implode()))
    if settings.edges > 0 and not on_these.is_empty():
        edits = edge_interventions(heaviest_edges(on_these, settings.edges), seed=settings.seed)
        yield _Batch("interventions.edges", IOI, list(edits), settings.prompts)


def _own(run: Run) -> Iterator[_Batch]:
    """The study's own experiments."""
    from mechinterp_assets.interventions.descriptions import expand
    from mechinterp_assets.interventions.terms import InterventionError

    settings = run.study.interventions
    for number, experiment in enumerate(settings.experiments):
        where = f"interventions.experiments.{number}"
        try:
            expanded = expand(experiment.interventions, run.model.config)
        except InterventionError as error:
            raise InterventionError(f"{where}: {error}") from None
        yield _Batch(
            where,
            experiment.task,
            expanded,
            experiment.prompts or settings.prompts,
            experiment.variant,
            experiment.reference_variant,
        )


def _add(planned: list[Planned], batch: _Batch) -> None:
    """Add a batch to what is planned for its task, none of which it may repeat."""
    from mechinterp_assets.interventions.terms import InterventionError

    known = {one.id for one in planned}
    if twice := [one.id for one in batch.interventions if one.id in known]:
        raise InterventionError(
            f"{batch.where}: {twice[0]} is run on task {batch.task} already, by default or by an "
            "earlier experiment; remove it here"
        )
    planned += batch.interventions


def _needed_saes(run: Run, batches: list[_Batch]) -> dict[int, SparseAutoencoder]:
    """SAEs of the layers that the batches edit; all, where published experiments choose."""
    from mechinterp_assets.interventions.descriptions import layers_with_saes

    own = [one for batch in batches for one in batch.interventions]
    needed = run.study.layers if run.study.interventions.published else layers_with_saes(own)
    return open_saes(run, [layer for layer in needed if layer in run.study.layers])


def _published(
    run: Run, prompts: pl.DataFrame, edges: pl.DataFrame, saes: dict[int, SparseAutoencoder]
) -> tuple[list[Planned], pl.DataFrame]:
    """Interventions of the study's published experiments, and their rows."""
    from mechinterp_assets.interventions.measured_context import experiment_context
    from mechinterp_assets.interventions.published import choose_published

    settings = run.study.interventions
    scores = [run.frame(name) for name in SCORE_TABLES]
    with_role: dict[str, list[tuple[int, int]]] = {}
    for layer, head, role in head_roles(*scores).select("layer", "head", "role").iter_rows():
        with_role.setdefault(role, []).append((layer, head))
    context = experiment_context(
        run.model,
        prompts,
        limit=settings.published_prompts,
        with_role=with_role,
        scores=pl.concat(frame.select("layer", "head", "score", "value") for frame in scores),
        trace_edges=edges,
        trace_graph=run.table("ioi_trace_graph").filter(pl.col("task") == IOI).collect(),
        saes=saes,
        settings=settings,
    )
    return choose_published(settings.published, context, run.log.info)


def _not_run_yet(run: Run, chosen: list[Planned], batches: list[_Batch]) -> _Batch:
    """The published interventions that neither the defaults nor the study's own include.

    Raises InterventionError where an own experiment has one of them on other prompts.
    """
    from mechinterp_assets.interventions.terms import InterventionError

    known: set[str] = set()
    for batch in batches:
        if batch.task != IOI:
            continue
        ids = {one.id for one in batch.interventions}
        known |= ids
        elsewhere = (batch.variant, batch.reference_variant) != (BASE, REFERENCE)
        if elsewhere and (shared := [one.id for one in chosen if one.id in ids]):
            raise InterventionError(
                f"{batch.where}: {shared[0]} is part of a published experiment too, on other "
                f"prompts (variant {BASE}, reference {REFERENCE}); leave that experiment out of "
                "interventions.published, or this intervention"
            )
    rest = [one for one in chosen if one.id not in known]
    limit = run.study.interventions.published_prompts
    return _Batch("interventions.published", IOI, rest, limit)


def _results(run: Run, batch: _Batch, saes: dict[int, SparseAutoencoder]) -> pl.DataFrame:
    from mechinterp_assets.interventions.api import run as run_on

    traced = _traced(run, batch.task)
    return run_on(
        run.model,
        prompts_of(run, batch.task, setting="interventions.experiments"),
        batch.interventions,
        variant=batch.variant,
        reference_variant=batch.reference_variant,
        limit=batch.limit,
        saes=saes,
        trace_edges=None if traced.is_empty() else traced,
    )


def _base(prompts: pl.DataFrame, limit: int) -> pl.Series:
    """Numbers of the first base prompts."""
    return prompts.filter(pl.col("variant") == BASE).head(limit)["prompt"]


def _traced(run: Run, task: str) -> pl.DataFrame:
    return run.table("ioi_trace_edges").filter(pl.col("task") == task).collect()
