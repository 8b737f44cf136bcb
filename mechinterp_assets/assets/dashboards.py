"""Group `features`, pages: one per feature, an index per layer, an index per study."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl

from mechinterp_assets.assets.publish import Inputs, Publisher
from mechinterp_assets.assets.registry import PARTITIONS, STUDIES, site
from mechinterp_assets.assets.specs import table_asset
from mechinterp_assets.dashboards.charts import tiny_bar_chart
from mechinterp_assets.dashboards.layer_frames import LayerFrames
from mechinterp_assets.dashboards.site import render_layer, render_study
from resources.dashboards import DashboardsResource
from resources.lake import Lake
from resources.tensors import Tensors

GROUP = "features"
SHOWN = {
    "statistics": "feature_statistics",
    "top_examples": "feature_top_examples",
    "intervals": "feature_intervals",
    "logit_effects": "feature_logit_effects",
    "head_attribution": "feature_head_attribution",
    "dfa": "feature_dfa",
}


@dg.multi_asset(
    name="feature_dashboards",
    specs=[
        table_asset(
            "feature_dashboards",
            per="site",
            group=GROUP,
            study_deps=["language_model", "tokenized_corpus", "vocabulary"],
            site_deps=[*SHOWN.values(), "attention_sae", "sae_evaluation"],
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
    """Self-contained HTML: a page per feature that fired, and a sortable index per layer."""
    publisher = Publisher(context, lake)
    for key in context.partition_keys:
        study, layer = site(key)
        inputs = Inputs(lake, tensors, study)
        model = inputs.table("language_model", study.study).collect().row(0, named=True)
        sae = inputs.table("attention_sae", key).collect().row(0, named=True)
        inputs.model_version, inputs.sae_version = model["weights_hash"], sae["weights_hash"]
        frames = LayerFrames(
            **{name: inputs.table(table, key).collect() for name, table in SHOWN.items()}
        )
        inputs.settings("features")
        fired = frames.statistics.filter(pl.col("n_active") > 0)
        shown = fired.top_k(study.features.pages, by=["n_active", "feature"])["feature"]
        sequences = inputs.table("tokenized_corpus", study.study)
        wanted = frames.example_sequences()
        tokens = inputs.table("vocabulary", study.study).sort("token_id").select("token")
        with dashboards.publish(key) as folder:
            rendered = render_layer(
                frames,
                folder,
                layer=layer,
                model=_shown_name(model["source"]),
                provenance=publisher.provenance(inputs),
                features=shown.to_list(),
                token_strings=tokens.collect()["token"].to_list(),
                sequences=sequences.filter(pl.col("sequence").is_in(wanted.implode()))
                .select("sequence", "token_ids")
                .collect(),
                evaluation=inputs.table("sae_evaluation", key).collect().row(0, named=True),
                details={"SAE": f"{sae['architecture']}, {sae['d_sae']} features"},
                study_href=f"../{study.study}/index.html",
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
                            "n_features": rendered.n_features,
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
            study_deps=["language_model"],
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
            model=_shown_name(model["source"]),
            provenance=Publisher(context, lake).provenance(inputs),
            statistics=of_sites("feature_statistics", "layer", "n_active", "log10_density"),
            evaluation=evaluation,
            hrefs={layer: f"..{url}" for layer, url in pages["layer", "url_path"].iter_rows()},
            description=study.description,
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
                        "n_layers": pages.height,
                        "n_features": int(pages["n_features"].sum()),
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


def _shown_name(source: str) -> str:
    """Name of a model for a page that may be published: a folder's name, not its place."""
    return Path(source).name if Path(source).is_absolute() else source
