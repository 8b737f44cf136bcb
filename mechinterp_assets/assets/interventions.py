"""Group `interventions`: what happens when activations are changed, and how sure that is."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.assets.publish import Inputs, Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES
from mechinterp_assets.assets.saes import open_sae
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.interventions.api import expand, layers_with_saes, run
from mechinterp_assets.interventions.edges import (
    edge_interventions,
    heaviest_edges,
    intervene_on_edges,
)
from mechinterp_assets.interventions.heads import ablate_heads, head_ablations
from mechinterp_assets.interventions.runner import intervention_sets
from mechinterp_assets.interventions.spec import InterventionError, Planned
from mechinterp_assets.interventions.summary import intervention_summary as summarise
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.study import site_key
from mechinterp_assets.study_sections import ExperimentSection
from mechinterp_assets.tasks.prompts import BASE, IOI
from resources.compute import ComputeResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Tensors

GROUP = "interventions"


@dg.multi_asset(
    name="interventions",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts", "ioi_trace_edges", "task_prompts"],
            site_deps=["attention_sae"],
            kinds=["torch"],
        )
        for name in ("intervention_results", "intervention_sets")
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
    """Ablation of every head, edits of traced edges with controls, and the study's experiments."""
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
    experiments = [
        (experiment, _expanded(experiment, number, model, planned))
        for number, experiment in enumerate(settings.experiments)
    ]
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
                saes={
                    layer: open_sae(inputs, site_key(study.study, layer), model)
                    for layer in layers_with_saes(interventions)
                    if layer in study.layers
                },
                trace_edges=_traced(inputs, experiment.task),
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
                intervention_sets(own, task) for task, own in planned.items()
            ),
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
