"""Pages of features, and an index per layer."""

from dataclasses import replace

import dagster as dg
import polars as pl

from mechinterp_assets.dashboards.collect import (
    HEAD_ROLES,
    NEEDED,
    OPTIONAL,
    edges_of_layer,
    layer_frames,
)
from mechinterp_assets.dashboards.context import LayerContext, sae_details, shown_name
from mechinterp_assets.dashboards.places import heads_folder
from mechinterp_assets.dashboards.site import render_layer
from mechinterp_assets.dashboards.tokens import TokenTexts
from mechinterp_assets.orchestration.head_roles import SCORE_TABLES
from mechinterp_assets.orchestration.run import Made, Run
from mechinterp_assets.orchestration.shape import tables


@tables(
    "feature_dashboards",
    reads=[
        *("language_model", "tokenized_corpus", "vocabulary"),
        *("attention_sae", "sae_evaluation", "feature_activations"),
        *NEEDED.values(),
        *OPTIONAL.values(),
        *SCORE_TABLES,
        "trace_graph",
    ],
    settings=["features.pages"],
    kinds=["html"],
)
def feature_dashboards(run: Run) -> Made:
    """Self-contained HTML: pages of the most active features, a sortable index per layer.

    A block is left out of the pages where its table has no rows yet.
    """
    model, sae = run.row("language_model"), run.row("attention_sae")

    def read(table: str) -> pl.LazyFrame | None:
        return run.table(table) if table in NEEDED.values() else run.find(table)

    scores, edges = read("head_scores"), read("trace_graph")
    shown = _shown_features(run)
    frames = layer_frames(
        read,
        run.layer,
        shown,
        whole=True,
        head_roles=None if scores is None else run.sql(HEAD_ROLES),
        ioi_edges=None if edges is None else edges_of_layer(edges.collect(), run.layer),
    )
    wanted = frames.example_sequences().implode()
    sequences = run.table("tokenized_corpus").filter(pl.col("sequence").is_in(wanted))
    tokens = run.table("vocabulary").sort("token_id").select("token").collect()
    name = run.partition
    with run.dashboards.publish(name) as folder:
        rendered = render_layer(
            frames,
            folder,
            LayerContext(
                layer=run.layer,
                model=shown_name(model["weights_source"]),
                provenance=replace(
                    run.origin("feature_statistics"), corpus_version=run.provenance.corpus_version
                ),
                texts=TokenTexts(tokens["token"].to_list()),
                details=sae_details(sae),
                study_href=f"../{run.name}/index.html",
                heads_href=f"../{heads_folder(run.name)}/",
            ),
            features=shown,
            sequences=sequences.select("sequence", "token_ids").collect(),
            evaluation=run.row("sae_evaluation"),
        )
    row = {
        "path": name,
        "url_path": f"/{name}/index.html",
        "n_feature_pages": rendered.n_features,
        "n_pages": rendered.n_pages,
        "bytes": rendered.bytes,
    }
    return run.made(
        {"feature_dashboards": pl.DataFrame([row])},
        {
            "feature_dashboards": {
                "dashboard": dg.MetadataValue.url(run.dashboards.url(name)),
                "features": float(rendered.n_features),
            }
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _shown_features(run: Run) -> list[int]:
    """The layer's most active features and those with a tree, ascending: these get a page."""
    fired = run.table("feature_statistics").filter(pl.col("n_active") > 0).collect()
    most_active = fired.top_k(run.study.features.pages, by=["n_active", "feature"])["feature"]
    trees = run.find("feature_rdfa")
    with_tree = [] if trees is None else trees.select("feature").collect()["feature"].to_list()
    return sorted({*most_active.to_list(), *with_tree})
