"""Group `ioi`: how well the model does it, Omega's singular values, the traced circuit."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.assets.publish import Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.circuits.baseline import ioi_baseline as answer_prompts
from mechinterp_assets.circuits.graph import graph_picture, to_graphml
from mechinterp_assets.circuits.graph import ioi_trace_graph as aggregate_edges
from mechinterp_assets.circuits.omega import attention_svd as singular_values
from mechinterp_assets.circuits.roots import find_roots, root_heads
from mechinterp_assets.circuits.trace import Root, TraceSettings, trace_circuit
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from resources.compute import ComputeResource
from resources.dashboards import DashboardsResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Tensors

GROUP = "ioi"


@dg.multi_asset(
    name="ioi_baseline",
    specs=[
        table_asset(
            "ioi_baseline",
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def ioi_baseline(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Logits and probabilities of both names at the end of every prompt."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.ioi.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study)
    prompts = inputs.table("ioi_prompts", study.study).collect()
    baseline = answer_prompts(model, prompts)
    base = baseline.join(prompts.filter(pl.col("variant") == "base"), on="prompt", how="semi")
    by_template = (
        base.join(prompts, on="prompt")
        .group_by("template")
        .agg(pl.col("logit_diff").mean())
        .sort("template")
    )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"ioi_baseline": baseline},
        {
            "ioi_baseline": {
                "accuracy": float(base["correct"].cast(pl.Float64).to_numpy().mean()),
                "logit_diff": float(base["logit_diff"].to_numpy().mean()),
                "logit_diff_by_template": dg.MetadataValue.md(
                    f"![templates]({tiny_bar_chart(by_template['logit_diff'].to_list())})"
                ),
            }
        },
    )
    yield from publisher.results()


@dg.multi_asset(
    name="attention_svd",
    specs=[
        table_asset(
            "attention_svd",
            per="study",
            group=GROUP,
            study_deps=["language_model"],
            kinds=["torch"],
        )
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def attention_svd(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Singular values of every head's Omega, from one batched QR and small SVD."""
    study = STUDIES[context.partition_key]
    compute.prepare(study.ioi.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study)
    frame = singular_values(model)
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {"attention_svd": frame},
        {"attention_svd": {"largest": float(frame["singular_value"].to_numpy().max())}},
    )
    yield from publisher.results()


@dg.multi_asset(
    name="ioi_trace",
    specs=[
        table_asset(
            name,
            per="study",
            group=GROUP,
            study_deps=["language_model", "ioi_prompts", "ioi_baseline"],
            kinds=["torch"],
        )
        for name in ("attention_slices", "ioi_trace_edges", "ioi_trace_graph")
    ],
    partitions_def=PARTITIONS.studies,
    pool=GPU_POOL,
)
def ioi_trace(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    dashboards: DashboardsResource,
    models: LanguageModelResource,
    compute: ComputeResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Singular vector tracing upstream from the heads that write the answer, on base prompts."""
    study = STUDIES[context.partition_key]
    settings = study.ioi
    compute.prepare(settings.seed)
    inputs, model = inputs_with_model(lake, tensors, models, study, "ioi")
    prompts = inputs.table("ioi_prompts", study.study).filter(pl.col("variant") == "base").collect()
    if settings.roots == "auto":
        roots = root_heads(
            find_roots(
                model, prompts, count=settings.max_roots, threshold=settings.firing_threshold
            )
        )
    else:
        roots = [Root(*root) for root in settings.roots]
    trace = trace_circuit(
        model,
        prompts,
        roots,
        TraceSettings(threshold=settings.firing_threshold, fraction=settings.contribution_fraction),
    )
    graph = aggregate_edges(trace.edges)
    address = None
    if not graph.is_empty():
        name = f"{study.study}.trace"
        with dashboards.publish(name) as folder:
            (folder / "trace.png").write_bytes(graph_picture(graph, title=study.description))
            (folder / "trace.graphml").write_bytes(to_graphml(graph))
        address = dg.MetadataValue.url(dashboards.url(name, "trace.png"))
    heaviest = graph.head(20)["n_prompts"].to_list()
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "attention_slices": trace.slices,
            "ioi_trace_edges": trace.edges,
            "ioi_trace_graph": graph,
        },
        {
            "attention_slices": {
                "largest_identity_error": float(trace.slices["identity_error"].to_numpy().max()),
                "mean_slices": float(trace.slices["n_slices"].cast(pl.Float64).to_numpy().mean()),
            },
            "ioi_trace_edges": {
                "roots": ", ".join(f"{r.layer}.{r.head} (END, {r.source})" for r in roots),
                "root_pairs_firing": float(trace.roots["n_firing"].sum()),
            },
            "ioi_trace_graph": {
                "edges": float(graph.height),
                "prompts_of_the_heaviest_edges": dg.MetadataValue.md(
                    f"![edges]({tiny_bar_chart(heaviest)})"
                ),
                **({"picture": address} if address else {}),
            },
        },
    )
    yield from publisher.results()
