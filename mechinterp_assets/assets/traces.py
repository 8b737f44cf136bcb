"""Group `ioi`: the circuit that singular vector tracing finds, under several rules."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from mechinterp_assets.assets.publish import Inputs, Publisher, inputs_with_model
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES
from mechinterp_assets.assets.specs import GPU_POOL, table_asset
from mechinterp_assets.circuits.consensus import PAIR_COLUMNS, consensus_signal
from mechinterp_assets.circuits.graph import graph_picture, to_graphml
from mechinterp_assets.circuits.graph import ioi_trace_graph as aggregate_edges
from mechinterp_assets.circuits.omega import ModelOmega
from mechinterp_assets.circuits.reference_heads import reference_lists
from mechinterp_assets.circuits.roots import find_roots, root_heads
from mechinterp_assets.circuits.trace import Root, Trace, TraceSettings, trace_batches
from mechinterp_assets.circuits.trace_summary import ioi_trace_summary
from mechinterp_assets.circuits.trace_variants import VariantCounts, variant_settings
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.dashboards.site import trace_folder
from mechinterp_assets.dashboards.trace_page import render_trace
from mechinterp_assets.language_model import LanguageModel
from mechinterp_assets.study_sections import IoiSection
from resources.compute import ComputeResource
from resources.dashboards import DashboardsResource
from resources.lake import Lake
from resources.language_model import LanguageModelResource
from resources.tensors import Tensors

GROUP = "ioi"
TABLES = (
    "attention_slices",
    "ioi_trace_edges",
    "ioi_trace_graph",
    "ioi_trace_nodes",
    "ioi_trace_variants",
    "ioi_trace_summary",
    "ioi_slice_contrast",
    "attention_consensus",
    "attention_token_signal",
)


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
        for name in TABLES
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
    references = reference_lists(model.config, settings.reference_heads)
    prompts = inputs.table("ioi_prompts", study.study).filter(pl.col("variant") == "base").collect()
    roots = _roots(model, prompts, settings)
    omega = ModelOmega(model)
    rules = TraceSettings(
        threshold=settings.firing_threshold,
        fraction=settings.contribution_fraction,
        contrast=settings.slice_contrast,
    )
    others = [
        variant_settings(variant, rules, settings.near_threshold)
        for variant in settings.trace_variants
    ]
    publisher = Publisher(context, lake)
    with lake.scratch() as folder:
        spool = _Spool(folder)
        counts = [VariantCounts("standard"), *map(VariantCounts, settings.trace_variants)]
        for parts in trace_batches(model, prompts, roots, [rules, *others], omega=omega):
            spool.add(parts[0])
            for count, part in zip(counts, parts, strict=True):
                count.add(part)
        graph = aggregate_edges(pl.concat(spool.kept))
        all_edges = pl.concat([count.edges() for count in counts])
        nodes = [count.nodes() for count in counts]
        all_nodes, root_counts = pl.concat(nodes), counts[0].roots()
        summary = ioi_trace_summary(
            all_nodes,
            all_edges,
            references,
            n_prompts=prompts.height,
            n_model_heads=model.config.n_layers * model.config.n_heads,
        )
        consensus, signal = consensus_signal(
            model, prompts, pl.concat(spool.pairs), n_nodes=settings.consensus_nodes, omega=omega
        )
        links = _publish_graph(
            dashboards, publisher, inputs, model, study.description, graph, nodes[0], root_counts
        )
        heaviest = graph.head(20)["n_prompts"].to_list()
        publisher.publish(
            study.study,
            inputs,
            {
                "attention_slices": spool.stream("slices"),
                "ioi_trace_edges": spool.stream("edges"),
                "ioi_slice_contrast": spool.stream("contrast"),
                "ioi_trace_graph": graph,
                "ioi_trace_nodes": all_nodes,
                "ioi_trace_variants": all_edges,
                "ioi_trace_summary": summary,
                "attention_consensus": consensus,
                "attention_token_signal": signal,
            },
            {
                "attention_slices": {"largest_identity_error": spool.largest_error},
                "ioi_trace_edges": {
                    "roots": ", ".join(f"{r.layer}.{r.head} (END, {r.source})" for r in roots),
                    "root_pairs_firing": float(root_counts["n_firing"].sum()),
                },
                "ioi_trace_graph": {
                    "edges": float(graph.height),
                    "prompts_of_the_heaviest_edges": dg.MetadataValue.md(
                        f"![edges]({tiny_bar_chart(heaviest)})"
                    ),
                    **links,
                },
                "ioi_trace_summary": {
                    "references": ", ".join(references) or "none for a model of this shape"
                },
            },
        )
    yield from publisher.results()


class _Spool:
    """Rows of the standard trace in files, so that memory does not grow with them, and the few
    columns that the aggregated tables need."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts = 0
        self.largest_error = 0.0
        self.kept: list[pl.DataFrame] = []
        self.pairs: list[pl.DataFrame] = []

    def add(self, part: Trace) -> None:
        frames = {"slices": part.slices, "edges": part.edges, "contrast": part.contrast}
        for name, frame in frames.items():
            frame.write_parquet(self._file(name, self._parts))
        self._parts += 1
        if part.slices.height:
            error = float(part.slices["identity_error"].to_numpy().max())
            self.largest_error = max(self.largest_error, error)
        self.kept.append(part.edges.filter("kept").drop("slices", "coverage"))
        self.pairs.append(part.slices.select(*PAIR_COLUMNS))

    def stream(self, name: str) -> Iterator[pl.DataFrame]:
        for part in range(self._parts):
            yield pl.read_parquet(self._file(name, part))

    def _file(self, name: str, part: int) -> Path:
        return self._folder / f"{name}-{part:06d}.parquet"


def _roots(model: LanguageModel, prompts: pl.DataFrame, settings: IoiSection) -> list[Root]:
    if settings.roots != "auto":
        return [Root(*root) for root in settings.roots]
    scores = find_roots(
        model, prompts, count=settings.max_roots, threshold=settings.firing_threshold
    )
    return root_heads(scores)


def _publish_graph(
    dashboards: DashboardsResource,
    publisher: Publisher,
    inputs: Inputs,
    model: LanguageModel,
    description: str,
    graph: pl.DataFrame,
    nodes: pl.DataFrame,
    roots: pl.DataFrame,
) -> dict[str, dg.MetadataValue]:
    """Write the picture, the page and GraphML; their addresses, none for a graph without edges."""
    if graph.is_empty():
        return {}
    name = trace_folder(inputs.study.study)
    page = render_trace(
        graph, nodes, roots, publisher.provenance(inputs), model.source, description
    )
    with dashboards.publish(name) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")
        (folder / "trace.png").write_bytes(graph_picture(graph, title=description))
        (folder / "trace.graphml").write_bytes(to_graphml(graph))
    return {
        "page": dg.MetadataValue.url(dashboards.url(name, "index.html")),
        "picture": dg.MetadataValue.url(dashboards.url(name, "trace.png")),
        "graphml": dg.MetadataValue.url(dashboards.url(name, "trace.graphml")),
    }
