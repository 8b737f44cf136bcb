"""Pages of heads, and an index of a study's heads."""

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
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables
from mechinterp_assets.studies.study import parse_site, site_key


@tables(
    "head_dashboards",
    reads=[
        *("language_model", "tokenized_corpus", "vocabulary"),
        *SCORE_TABLES,
        *OF_STUDY.values(),
        *OF_SITE.values(),
        FAMILY_TABLE,
        "feature_dashboards",
    ],
    kinds=["html"],
)
def head_dashboards(run: Run) -> Made:
    """Self-contained HTML: scores, attention examples, features, edges, effects of every head."""
    model = run.row("language_model")

    def read(table: str, site: str | None) -> pl.LazyFrame | None:
        return run.find(table, None if site is None else parse_site(site)[1])

    frames = head_frames(read, run.sql, run.study.sites)
    linked = _features_with_pages(run)
    sequences = (
        run.table("tokenized_corpus")
        .filter(pl.col("sequence").is_in(frames.sequences()))
        .select("sequence", "token_ids")
        .collect()
    )
    tokens = run.table("vocabulary").sort("token_id").select("token").collect()

    def feature_link(layer: int, feature: int) -> str | None:
        shown = str(feature) in linked.get(layer, ())
        return feature_href(run.name, layer, feature) if shown else None

    renderer = HeadRenderer(
        HeadContext(
            model=shown_name(model["weights_source"]),
            provenance=run.origin("head_scores"),
            texts=TokenTexts(tokens["token"].to_list()),
            feature_link=feature_link,
            layer_hrefs={layer: layer_href(run.name, layer) for layer in linked},
            study_href=f"../{run.name}/index.html",
        ),
        frames,
        sequences,
    )
    name = heads_folder(run.name)
    with run.dashboards.publish(name) as folder:
        rendered = render_heads(renderer, folder)
    row = {
        "path": name,
        "url_path": f"/{name}/index.html",
        "n_head_pages": len(renderer.heads),
        "n_pages": rendered.n_pages,
        "bytes": rendered.bytes,
    }
    return run.made(
        {
            "head_dashboards": pl.DataFrame(
                [row], schema_overrides={"n_head_pages": pl.Int32, "n_pages": pl.Int32}
            )
        },
        {"head_dashboards": {"dashboard": dg.MetadataValue.url(run.dashboards.url(name))}},
    )


# ---- private -------------------------------------------------------------------------------------


def _features_with_pages(run: Run) -> dict[int, set[str]]:
    """Features for which feature_dashboards has written a page, of every layer that has pages."""
    return {
        layer: run.dashboards.pages(site_key(run.name, layer), "features")
        for layer in run.study.layers
        if run.find("feature_dashboards", layer) is not None
    }
