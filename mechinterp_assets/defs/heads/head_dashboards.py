"""Group `heads`, pages: one per head, and an index of a study's heads."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.context import shown_name
from mechinterp_assets.dashboards.head_frames import (
    FAMILY_TABLE,
    OF_SITE,
    OF_STUDY,
    SCORE_TABLES,
    head_frames,
)
from mechinterp_assets.dashboards.head_site import HeadContext, HeadRenderer, render_heads
from mechinterp_assets.dashboards.places import feature_href, heads_folder, layer_href
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.defs.heads.head_scores import GROUP
from mechinterp_assets.orchestration.publishing import Inputs, Publisher
from mechinterp_assets.orchestration.registry import PARTITIONS, STUDIES
from mechinterp_assets.orchestration.specs import table_asset
from mechinterp_assets.resources.dashboards import DashboardsResource
from mechinterp_assets.storage.lake import Lake
from mechinterp_assets.storage.tensors import Tensors


@dg.multi_asset(
    name="head_dashboards",
    specs=[
        table_asset(
            "head_dashboards",
            per="study",
            group=GROUP,
            study_deps=[
                *("language_model", "tokenized_corpus", "vocabulary"),
                *SCORE_TABLES,
                *OF_STUDY.values(),
            ],
            site_deps=[*OF_SITE.values(), FAMILY_TABLE, "feature_dashboards"],
            kinds=["html"],
        )
    ],
    partitions_def=PARTITIONS.studies,
)
def head_dashboards(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    tensors: dg.ResourceParam[Tensors],
    dashboards: DashboardsResource,
) -> Iterator[dg.MaterializeResult[None]]:
    """Self-contained HTML: scores, attention examples, features, edges, effects of every head."""
    study = STUDIES[context.partition_key]
    inputs = Inputs(lake, tensors, study)
    model = inputs.table("language_model", study.study).collect().row(0, named=True)
    inputs.model_version = model["weights_hash"]

    def read(table: str, site: str | None) -> pl.LazyFrame | None:
        partition = site or study.study
        return inputs.table(table, partition) if lake.exists(table, partition) else None

    for table in SCORE_TABLES:
        read(table, None)  # behind the views that the frames read
    frames = head_frames(read, lambda query: lake.sql(query, {"study": study.study}), study.sites)
    linked = _features_with_pages(inputs, lake, dashboards)
    sequences = (
        inputs.table("tokenized_corpus", study.study)
        .filter(pl.col("sequence").is_in(frames.sequences()))
        .select("sequence", "token_ids")
        .collect()
    )
    tokens = inputs.table("vocabulary", study.study).sort("token_id").select("token")
    publisher = Publisher(context, lake)

    def feature_link(layer: int, feature: int) -> str | None:
        shown = str(feature) in linked.get(layer, ())
        return feature_href(study.study, layer, feature) if shown else None

    renderer = HeadRenderer(
        HeadContext(
            model=shown_name(model["weights_source"]),
            provenance=publisher.provenance(inputs),
            texts=TokenTexts(tokens.collect()["token"].to_list()),
            feature_link=feature_link,
            layer_hrefs={layer: layer_href(study.study, layer) for layer in linked},
            study_href=f"../{study.study}/index.html",
        ),
        frames,
        sequences,
    )
    name = heads_folder(study.study)
    with dashboards.publish(name) as folder:
        rendered = render_heads(renderer, folder)
    publisher.publish(
        study.study,
        inputs,
        {
            "head_dashboards": pl.DataFrame(
                [
                    {
                        "path": name,
                        "url_path": f"/{name}/index.html",
                        "n_head_pages": len(renderer.heads),
                        "n_pages": rendered.n_pages,
                        "bytes": rendered.bytes,
                    }
                ],
                schema_overrides={"n_head_pages": pl.Int32, "n_pages": pl.Int32},
            )
        },
        {"head_dashboards": {"dashboard": dg.MetadataValue.url(dashboards.url(name))}},
    )
    yield from publisher.results()


def _features_with_pages(
    inputs: Inputs, lake: Lake, dashboards: DashboardsResource
) -> dict[int, set[str]]:
    """Features for which feature_dashboards has written a page, of every layer that has pages."""
    found: dict[int, set[str]] = {}
    for layer, key in zip(inputs.study.layers, inputs.study.sites, strict=True):
        if lake.exists("feature_dashboards", key):
            inputs.table("feature_dashboards", key)
            found[layer] = dashboards.pages(key, "features")
        if lake.exists(FAMILY_TABLE, key):
            inputs.table(FAMILY_TABLE, key)  # behind the view that the frames read
    return found
