"""Group `interventions`: what happens to IOI when heads and traced edges are changed."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.assets.publish import Inputs, Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.interventions.edges import (
    edge_interventions,
    heaviest_edges,
    intervene_on_edges,
)
from mechinterp_assets.interventions.heads import ablate_heads, head_ablations
from mechinterp_assets.interventions.runner import intervention_sets
from mechinterp_assets.interventions.summary import intervention_summary as summarise
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
            study_deps=["language_model", "ioi_prompts", "ioi_trace_edges"],
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
    """Zero and mean ablation of every head; ablation and boost of traced edges, with controls."""
    study = STUDIES[context.partition_key]
    settings = study.interventions
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "interventions")
    prompts = inputs.table("ioi_prompts", study.study).collect()
    base = prompts.filter(pl.col("variant") == "base").head(settings.prompts)
    edges = inputs.table("ioi_trace_edges", study.study).filter(pl.col("task") == "ioi").collect()
    frames = []
    planned = []
    if settings.head_ablations:
        reference = prompts.filter(pl.col("variant") == "ABC")
        frames.append(ablate_heads(model, base, reference, modes=settings.head_ablations))
        planned += head_ablations(
            model.config.n_layers, model.config.n_heads, modes=settings.head_ablations
        )
    if settings.edges and not edges.is_empty():
        frames.append(
            intervene_on_edges(model, base, edges, n_edges=settings.edges, seed=settings.seed)
        )
        planned += edge_interventions(heaviest_edges(edges, settings.edges), seed=settings.seed)
    results = pl.concat(frames)
    changed = results.filter(pl.col("metric") == "logit_diff").select(
        "kind", effect=pl.col("patched") - pl.col("clean")
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"intervention_results": results, "intervention_sets": intervention_sets(planned)},
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
