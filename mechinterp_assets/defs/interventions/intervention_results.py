"""Group `interventions`: what happens when activations are changed, and how sure that is."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.defs.saes.attention_sae import open_sae
from mechinterp_assets.interventions.api import run
from mechinterp_assets.interventions.descriptions import expand, layers_with_saes
from mechinterp_assets.interventions.edge_choice import edge_interventions, heaviest_edges
from mechinterp_assets.interventions.experiment_context import PublishedSettings
from mechinterp_assets.interventions.kinds.head_ablation import head_ablations
from mechinterp_assets.interventions.measured_context import experiment_context
from mechinterp_assets.interventions.published import choose_published
from mechinterp_assets.interventions.runner import intervention_sets
from mechinterp_assets.interventions.sets import Planned
from mechinterp_assets.interventions.summary import intervention_summary as summarise
from mechinterp_assets.interventions.sweeps import ablate_heads, intervene_on_edges
from mechinterp_assets.interventions.terms import InterventionError
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES, head_roles
from mechinterp_assets.orchestration.publishing import Inputs, Publisher, inputs_with_model
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import GPU_POOL, table_asset
from mechinterp_assets.prompts.common import BASE, IOI
from mechinterp_assets.resources.compute import ComputeResource
from mechinterp_assets.resources.language_model import LanguageModelResource
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors
from mechinterp_assets.studies.sections import ExperimentSection
from mechinterp_assets.studies.study import site_key

GROUP = "interventions"


@dg.multi_asset(
    name="interventions",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=[
                "language_model",
                "ioi_prompts",
                "ioi_trace_edges",
                "ioi_trace_graph",
                "task_prompts",
                "head_scores",
                "ioi_head_scores",
            ],
            site_deps=["attention_sae"],
            kinds=["torch"],
        )
        for name in ("intervention_results", "intervention_sets", "intervention_experiments")
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def intervention_results(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Ablation of every head, edits of traced edges, published experiments and the study's own."""
    study = STUDIES[context.partition_key]
    settings = study.interventions
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "interventions")
    prompts = inputs.table("ioi_prompts", study.study).collect()
    base = prompts.filter(pl.col("variant") == BASE).head(settings.prompts)
    edges = _traced(inputs, IOI)
    planned: dict[str, list[Planned]] = {IOI: []}
    if settings.head_ablations:
        shape = model.config
        planned[IOI] += head_ablations(shape.n_layers, shape.n_heads, modes=settings.head_ablations)
    with_edges = settings.edges > 0 and not edges.is_empty()
    if with_edges:
        planned[IOI] += edge_interventions(
            heaviest_edges(edges, settings.edges), seed=settings.seed
        )
    defaults = list(planned[IOI])
    experiments = [
        (experiment, _expanded(experiment, number, model, planned))
        for number, experiment in enumerate(settings.experiments)
    ]
    own = [one for _, interventions in experiments for one in interventions]
    needed = study.layers if settings.published else layers_with_saes(own)
    saes = {
        layer: open_sae(inputs, site_key(study.study, layer), model)
        for layer in needed
        if layer in study.layers
    }
    chosen, listed = _published(context, inputs, model, prompts, edges, saes)
    chosen = _not_run_yet(chosen, planned[IOI], settings.experiments, model)
    frames = []
    if settings.head_ablations:
        reference = prompts.filter(pl.col("variant") == "ABC")
        frames.append(ablate_heads(model, base, reference, modes=settings.head_ablations))
    if with_edges:
        frames.append(
            intervene_on_edges(model, base, edges, n_edges=settings.edges, seed=settings.seed)
        )
    for experiment, interventions in experiments:
        frames.append(
            run(
                model,
                prompts if experiment.task == IOI else _task_prompts(inputs, experiment.task),
                interventions,
                variant=experiment.variant,
                reference_variant=experiment.reference_variant,
                limit=experiment.prompts or settings.prompts,
                saes=saes,
                trace_edges=_traced(inputs, experiment.task),
            )
        )
    if chosen:
        frames.append(
            run(
                model,
                prompts,
                chosen,
                limit=settings.published_prompts,
                saes=saes,
                trace_edges=None if edges.is_empty() else edges,
            )
        )
    results = pl.concat(frames)
    changed = results.filter(pl.col("metric") == "logit_diff").select(
        "kind", effect=pl.col("patched") - pl.col("clean")
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "intervention_results": results,
            "intervention_sets": pl.concat(
                [
                    intervention_sets([*defaults, *chosen], IOI, "ABC"),
                    *(
                        intervention_sets(interventions, one.task, one.reference_variant)
                        for one, interventions in experiments
                    ),
                ]
            ),
            "intervention_experiments": listed,
        },
        {
            "intervention_results": {
                "interventions": float(results["intervention"].n_unique()),
                **{
                    f"largest_drop_{kind}": float(effect)
                    for kind, effect in changed.group_by("kind")
                    .agg(pl.col("effect").min())
                    .sort("kind")
                    .iter_rows()
                },
            }
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="intervention_summary",
    specs=[
        table_asset(
            "intervention_summary",
            per="study",
            group=GROUP,
            study_deps=["intervention_results"],
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def intervention_summary(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
) -> Iterator[dg.MaterializeResult[None]]:
    """Mean effects with bootstrap intervals over prompts, beside those of the random controls."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    inputs.settings("interventions")
    results = inputs.table("intervention_results", study.study).collect()
    summary = summarise(
        results, n_bootstrap=study.interventions.bootstrap, seed=study.interventions.seed
    )
    worst = summary.filter(pl.col("metric") == "logit_diff").sort("mean_effect").head(20)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"intervention_summary": summary},
        {
            "intervention_summary": {
                "twenty_most_harmful": dg.MetadataValue.md(
                    f"![effects]({tiny_bar_chart((-worst['mean_effect']).to_list())})"
                )
            }
        },
    )
    yield from publisher.results()


# ---- private -------------------------------------------------------------------------------------


def _expanded(
    experiment: ExperimentSection,
    number: int,
    model: LanguageModel,
    planned: dict[str, list[Planned]],
) -> list[Planned]:
    """Interventions of an experiment, added to those of its task, which it must not repeat."""
    where = f"interventions.experiments.{number}"
    own = planned.setdefault(experiment.task, [])
    try:
        interventions = expand(experiment.interventions, model.config)
    except InterventionError as error:
        raise InterventionError(f"{where}: {error}") from None
    known = {one.id for one in own}
    if twice := [one.id for one in interventions if one.id in known]:
        raise InterventionError(
            f"{where}: {twice[0]} is run on task {experiment.task} already, by default or by an "
            "earlier experiment; remove it here"
        )
    own += interventions
    return interventions


def _published(
    context: dg.AssetExecutionContext,
    inputs: Inputs,
    model: LanguageModel,
    prompts: pl.DataFrame,
    edges: pl.DataFrame,
    saes: dict[int, SparseAutoencoder],
) -> tuple[list[Planned], pl.DataFrame]:
    """Interventions of the study's published experiments, and their rows."""
    study = inputs.study
    settings = study.interventions
    scores = [inputs.table(name, study.study).collect() for name in SCORE_TABLES]
    graph = inputs.table("ioi_trace_graph", study.study).filter(pl.col("task") == IOI).collect()
    with_role: dict[str, list[tuple[int, int]]] = {}
    for layer, head, role in head_roles(*scores).select("layer", "head", "role").iter_rows():
        with_role.setdefault(role, []).append((layer, head))
    experiments = experiment_context(
        model,
        prompts,
        limit=settings.published_prompts,
        with_role=with_role,
        scores=pl.concat(frame.select("layer", "head", "score", "value") for frame in scores),
        trace_edges=edges,
        trace_graph=graph,
        saes=saes,
        settings=PublishedSettings(
            edges=settings.published_edges,
            features=settings.published_features,
            seed=settings.seed,
        ),
    )
    return choose_published(settings.published, experiments, context.log.info)


def _not_run_yet(
    chosen: list[Planned],
    planned: list[Planned],
    experiments: list[ExperimentSection],
    model: LanguageModel,
) -> list[Planned]:
    """Those of the published interventions that neither the defaults nor the user's own include.

    Raises InterventionError where an own experiment has one of them on other prompts.
    """
    for number, experiment in enumerate(experiments):
        given = (experiment.task, experiment.variant, experiment.reference_variant)
        if given[0] != IOI or given == (IOI, BASE, "ABC"):
            continue
        ids = {one.id for one in expand(experiment.interventions, model.config)}
        if shared := [one.id for one in chosen if one.id in ids]:
            raise InterventionError(
                f"interventions.experiments.{number}: {shared[0]} is part of a published "
                "experiment too, on other prompts (variant base, reference ABC); leave that "
                "experiment out of interventions.published, or this intervention"
            )
    known = {one.id for one in planned}
    return [one for one in chosen if one.id not in known]


def _traced(inputs: Inputs, task: str) -> pl.DataFrame:
    table = inputs.table("ioi_trace_edges", inputs.study.study)
    return table.filter(pl.col("task") == task).collect()


def _task_prompts(inputs: Inputs, task: str) -> pl.DataFrame:
    table = inputs.table("task_prompts", inputs.study.study)
    prompts = table.filter(pl.col("task") == task).collect()
    if prompts.is_empty():
        raise InterventionError(
            f"task {task!r} has no prompts in this study: its tokenizer may not be able to express "
            "them (the log of task_prompts says why); choose another task"
        )
    return prompts
