"""What of a study's interventions its model, prompts, traces and SAEs can run.

Belongs here: turning settings into requests, and what is left out with the reason. Does not belong
here: assets (intervention_results.py), what interventions consist of and their checks
(interventions/).

Requests are asked for by name: interventions.head_ablations, interventions.edges,
interventions.experiments.N and interventions.published.NAME.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import polars as pl

from mechinterp_assets.defs.tasks.prompts_of import NoPromptsError, prompts_of
from mechinterp_assets.orchestration.artefacts import open_saes
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES, head_roles
from mechinterp_assets.orchestration.run import Run

if TYPE_CHECKING:  # science imports torch
    from collections.abc import Iterator, Mapping, Sequence

    from mechinterp_assets.interventions.api import Request
    from mechinterp_assets.interventions.published import PublishedPlan
    from mechinterp_assets.interventions.sets import Planned
    from mechinterp_assets.sae.base import SparseAutoencoder

IOI, BASE, REFERENCE = "ioi", "base", "ABC"
PUBLISHED = "interventions.published"


@dataclass(frozen=True)
class Batch:
    """Interventions on the same prompts of a task; asked_by: which setting names them."""

    asked_by: str
    task: str
    interventions: tuple[Planned, ...]
    limit: int
    variant: str = BASE
    reference_variant: str = REFERENCE

    @property
    def is_usual(self) -> bool:
        """Whether it runs on base prompts, with the usual reference."""
        return (self.variant, self.reference_variant) == (BASE, REFERENCE)


@dataclass
class StudyPlan:
    """What runs, in its order, and the rows of intervention_plan and intervention_experiments."""

    batches: list[tuple[Batch, Request]] = field(default_factory=list)
    rows: list[dict[str, str | None]] = field(default_factory=list)
    published: PublishedPlan | None = None

    def runs(self, task: str) -> dict[str, Batch]:
        """Id of every intervention that runs on a task -> its batch."""
        own = [batch for batch, _ in self.batches if batch.task == task]
        return {one.id: batch for batch in own for one in batch.interventions}

    def add(self, batch: Batch, request: Request) -> None:
        """Take what can be run of a batch and is not run by an earlier one."""
        from mechinterp_assets.interventions.plan import Plan, plan_rows

        known = self.runs(batch.task)
        twice = tuple(
            (one, f"{known[one.id].asked_by} runs it on this task already")
            for one in batch.interventions
            if one.id in known
        )
        new = [one for one in batch.interventions if one.id not in known]
        plan = request.with_only(new).plan()
        plan = Plan(plan.runs, (*plan.left_out, *twice))
        shape = request.context.model.config
        self.rows += plan_rows(plan, shape, task=batch.task, asked_by=batch.asked_by)
        self.run(batch, request, plan.runs)

    def run(self, batch: Batch, request: Request, planned: Sequence[Planned]) -> None:
        """Run these interventions on a batch's prompts."""
        if planned:
            only = replace(batch, interventions=tuple(planned))
            self.batches.append((only, request.with_only(planned)))

    def leave_out(self, asked_by: str, task: str, reason: str) -> None:
        """Note that nothing of what was asked for runs."""
        from mechinterp_assets.interventions.plan import left_out

        self.rows.append(left_out(reason, task=task, asked_by=asked_by))


def plan_of_study(run: Run) -> StudyPlan:
    """Everything that runs and what is left out.

    What needs no measurement is checked as a whole before anything is measured to choose by.
    """
    from mechinterp_assets.interventions.descriptions import layers_with_saes
    from mechinterp_assets.interventions.terms import InterventionError

    settings, plan = run.study.interventions, StudyPlan()
    asked = [*_by_default(run, plan), *_own(run, plan)]
    # Published experiments choose among the SAEs of all layers.
    needed = layers_with_saes([one for batch in asked for one in batch.interventions])
    layers = run.study.layers if settings.published else needed
    saes = open_saes(run, [layer for layer in layers if layer in run.study.layers])
    for batch in asked:
        try:
            plan.add(batch, _request(run, batch, saes))
        except (InterventionError, NoPromptsError) as error:
            plan.leave_out(batch.asked_by, batch.task, str(error))
    if settings.published:
        batch = Batch(PUBLISHED, IOI, (), settings.published_prompts)
        try:
            _add_published(run, plan, batch, _request(run, batch, saes))
        except (InterventionError, NoPromptsError) as error:
            plan.leave_out(PUBLISHED, IOI, str(error))
    return plan


# ---- private -------------------------------------------------------------------------------------


def _by_default(run: Run, plan: StudyPlan) -> Iterator[Batch]:
    """Every head ablated, and the edges edited that are heaviest on the prompts that are run."""
    from mechinterp_assets.interventions.edge_choice import edge_interventions, heaviest_edges
    from mechinterp_assets.interventions.kinds.head_ablation import head_ablations

    settings, shape = run.study.interventions, run.model.config
    if settings.head_ablations:
        ablations = head_ablations(shape.n_layers, shape.n_heads, modes=settings.head_ablations)
        yield Batch("interventions.head_ablations", IOI, tuple(ablations), settings.prompts)
    if settings.edges > 0:
        base = run.table("ioi_prompts").filter(pl.col("variant") == BASE).collect()
        prompts = base.head(settings.prompts)["prompt"]
        traced = _traced(run, IOI).filter(pl.col("prompt").is_in(prompts.implode()))
        edges = heaviest_edges(traced, settings.edges)
        edits = edge_interventions(edges, seed=settings.seed)
        if edits:
            yield Batch("interventions.edges", IOI, tuple(edits), settings.prompts)
        else:
            plan.leave_out(
                "interventions.edges",
                IOI,
                "no edge between heads was traced in the prompts that are run",
            )


def _own(run: Run, plan: StudyPlan) -> Iterator[Batch]:
    """The study's own experiments."""
    from mechinterp_assets.interventions.descriptions import expand
    from mechinterp_assets.interventions.terms import InterventionError

    settings = run.study.interventions
    for number, experiment in enumerate(settings.experiments):
        asked_by = f"interventions.experiments.{number}"
        try:
            expanded = expand(experiment.interventions, run.model.config)
        except InterventionError as error:
            plan.leave_out(asked_by, experiment.task, str(error))
            continue
        yield Batch(
            asked_by,
            experiment.task,
            tuple(expanded),
            experiment.prompts or settings.prompts,
            experiment.variant,
            experiment.reference_variant,
        )


def _request(run: Run, batch: Batch, saes: Mapping[int, SparseAutoencoder]) -> Request:
    from mechinterp_assets.interventions.api import request

    return request(
        run.model,
        prompts_of(run, batch.task),
        batch.interventions,
        variant=batch.variant,
        reference_variant=batch.reference_variant,
        limit=batch.limit,
        saes=saes,
        trace_edges=_traced(run, batch.task),
    )


def _add_published(run: Run, plan: StudyPlan, batch: Batch, request: Request) -> None:
    """Published experiments: what they choose and no other batch runs."""
    from mechinterp_assets.interventions.edge_keys import own_token_edges
    from mechinterp_assets.interventions.measured_context import experiment_context
    from mechinterp_assets.interventions.published import choose_published
    from mechinterp_assets.interventions.terms import InterventionError

    settings = run.study.interventions
    scores = [run.frame(name) for name in SCORE_TABLES]
    with_role: dict[str, list[tuple[int, int]]] = {}
    for layer, head, role in head_roles(*scores).select("layer", "head", "role").iter_rows():
        with_role.setdefault(role, []).append((layer, head))
    context = experiment_context(
        request,
        with_role=with_role,
        scores=pl.concat(frame.select("layer", "head", "score", "value") for frame in scores),
        trace_edges=_traced(run, IOI),
        trace_graph=own_token_edges(
            run.table("trace_graph").filter(pl.col("task") == IOI).collect()
        ),
        settings=settings,
    )
    known = plan.runs(IOI)

    def check(planned: Sequence[Planned]) -> None:
        for one in planned:
            if one.id in known and not known[one.id].is_usual:
                raise InterventionError(
                    f"{one.id}: {known[one.id].asked_by} runs it on other prompts (variant "
                    f"{known[one.id].variant}, reference {known[one.id].reference_variant})"
                )
        request.check(planned)

    chosen = choose_published(settings.published, replace(context, check=check), run.log.info)
    plan.published = chosen
    plan.rows += chosen.rows
    plan.run(batch, request, [one for one in chosen.runs if one.id not in known])


def _traced(run: Run, task: str) -> pl.DataFrame:
    from mechinterp_assets.interventions.edge_keys import own_token_edges

    return own_token_edges(run.table("trace_edges").filter(pl.col("task") == task).collect())
