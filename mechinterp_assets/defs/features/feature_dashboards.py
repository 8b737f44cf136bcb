"""Group `features`, pages: one per feature, an index per layer, an index per study."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.dashboards.collect import (
    HEAD_ROLES,
    NEEDED,
    OF_STUDY,
    OPTIONAL,
    edges_of_layer,
    layer_frames,
)
from mechinterp_assets.dashboards.context import LayerContext, sae_details, shown_name
from mechinterp_assets.dashboards.places import (
    experiments_folder,
    frontier_folder,
    heads_folder,
    trace_folder,
)
from mechinterp_assets.dashboards.site import render_layer, render_study
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.orchestration.publishing import Inputs, Publisher
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors

GROUP = "features"
# A block is left out of the pages where its table has no rows of the study yet.
SITE_TABLES = [name for name in {**NEEDED, **OPTIONAL}.values() if name not in OF_STUDY]


@dg.multi_asset(
    name="feature_dashboards",
    specs=[
        table_asset(
            "feature_dashboards",
            per="site",
            group=GROUP,
            study_deps=[
                "language_model",
                "tokenized_corpus",
                "vocabulary",
                "head_scores",
                "ioi_trace_graph",
                *OF_STUDY,
            ],
            site_deps=[*SITE_TABLES, "feature_activations", "attention_sae", "sae_evaluation"],
            kinds=["html"],
        )
    ],
    partitions_def=PARTITIONS.sites,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def feature_dashboards(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    dashboards: DashboardsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Self-contained HTML: pages of the most active features, a sortable index per layer."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        inputs = Inputs(lake, tensors, study)
        model = inputs.table("language_model", study.study).collect().row(0, named=True)
        sae = inputs.table("attention_sae", key).collect().row(0, named=True)
        inputs.model_version, inputs.sae_version = model["weights_hash"], sae["weights_hash"]
        inputs.settings("features")

        def read(table: str, key: str = key, inputs: Inputs = inputs) -> pl.LazyFrame | None:
            of_study = table in OF_STUDY or table in ("head_scores", "ioi_trace_graph")
            partition = inputs.study.study if of_study else key
            if table not in NEEDED.values() and not lake.exists(table, partition):
                return None
            return inputs.table(table, partition)

        edges = read("ioi_trace_graph")
        fired = inputs.table("feature_statistics", key).filter(pl.col("n_active") > 0).collect()
        most_active = fired.top_k(study.features.pages, by=["n_active", "feature"])["feature"]
        trees = read("feature_rdfa")
        with_tree = [] if trees is None else trees.select("feature").collect()["feature"].to_list()
        shown = sorted({*most_active.to_list(), *with_tree})
        frames = layer_frames(
            read,
            layer,
            shown,
            whole=True,
            head_roles=_head_roles(lake, study.study, layer)
            if read("head_scores") is not None
            else None,
            ioi_edges=None if edges is None else edges_of_layer(edges.collect(), layer),
        )
        wanted = frames.example_sequences().implode()
        sequences = inputs.table("tokenized_corpus", study.study).filter(
            pl.col("sequence").is_in(wanted)
        )
        tokens = inputs.table("vocabulary", study.study).sort("token_id").select("token")
        with dashboards.publish(key) as folder:
            rendered = render_layer(
                frames,
                folder,
                LayerContext(
                    layer=layer,
                    model=shown_name(model["weights_source"]),
                    provenance=publisher.provenance(inputs),
                    texts=TokenTexts(tokens.collect()["token"].to_list()),
                    details=sae_details(sae),
                    study_href=f"../{study.study}/index.html",
                    heads_href=f"../{heads_folder(study.study)}/",
                ),
                features=shown,
                sequences=sequences.select("sequence", "token_ids").collect(),
                evaluation=inputs.table("sae_evaluation", key).collect().row(0, named=True),
            )
        publisher.publish(
            key,
            inputs,
            {
                "feature_dashboards": pl.DataFrame(
                    [
                        {
                            "layer": layer,
                            "path": key,
                            "url_path": f"/{key}/index.html",
                            "n_feature_pages": rendered.n_features,
                            "n_pages": rendered.n_pages,
                            "bytes": rendered.bytes,
                        }
                    ]
                )
            },
            {
                "feature_dashboards": {
                    "dashboard": dg.MetadataValue.url(dashboards.url(key)),
                    "features": float(rendered.n_features),
                }
            },
        )
    yield from publisher.results()


@dg.multi_asset(
    name="study_dashboards",
    specs=[
        table_asset(
            "study_dashboards",
            per="study",
            group=GROUP,
            study_deps=["language_model", "head_dashboards", "experiment_dashboards"],
            site_deps=["feature_dashboards", "feature_statistics", "sae_evaluation"],
            kinds=["html"],
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def study_dashboards(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    dashboards: DashboardsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """The page that links all layers of a study, with the quality of their SAEs."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]

    def of_sites(table: str, *columns: str) -> pl.DataFrame:
        frames = [inputs.table(table, key) for key in study.sites]
        frame = pl.concat(frames).collect()
        return frame.select(columns) if columns else frame

    pages = of_sites("feature_dashboards").sort("layer")
    evaluation = of_sites("sae_evaluation").sort("layer")
    with dashboards.publish(study.study) as folder:
        render_study(
            folder,
            model=shown_name(model["weights_source"]),
            provenance=Publisher(context, lake).provenance(inputs),
            statistics=of_sites("feature_statistics", "layer", "n_active", "log10_density"),
            evaluation=evaluation,
            hrefs={layer: f"..{url}" for layer, url in pages["layer", "url_path"].iter_rows()},
            description=study.description,
            related={
                title: f"../{name}/index.html"
                for title, name in (
                    ("its attention heads", heads_folder(study.study)),
                    ("its experiments", experiments_folder(study.study)),
                    *(
                        (f"the traced circuit of {task}", trace_folder(study.study, task))
                        for task in study.tasks.traced
                    ),
                    ("the frontier of its sweep", frontier_folder(study.study)),
                )
                if dashboards.has(name)
            },
        )
    publisher = Publisher(context, lake)
    publisher.publish(
        study.study,
        inputs,
        {
            "study_dashboards": pl.DataFrame(
                [
                    {
                        "path": study.study,
                        "url_path": f"/{study.study}/index.html",
                        "n_layer_pages": pages.height,
                        "n_feature_pages": int(pages["n_feature_pages"].sum()),
                    }
                ]
            )
        },
        {
            "study_dashboards": {
                "dashboard": dg.MetadataValue.url(dashboards.url(study.study)),
                "ce_recovered_by_layer": dg.MetadataValue.md(
                    f"![ce]({tiny_bar_chart(evaluation['ce_recovered'].to_list())})"
                ),
            }
        },
    )
    yield from publisher.results()


def _head_roles(lake: Lake, study: str, layer: int) -> pl.DataFrame:
    return lake.sql(HEAD_ROLES, {"study": study, "layer": layer})
