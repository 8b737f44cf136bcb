"""Which tables a layer's pages are made of, and how they are cut to the features shown.

Belongs here: table names and the cut, the same for pages in bulk and on demand. Where tables come
from is the caller's: it passes functions that read them.
"""

from collections.abc import Callable, Sequence

import polars as pl

from mechinterp_assets.dashboards.layer_frames import LayerFrames, feature_names

# Frame of LayerFrames -> table. What is needed, and what is shown where it is there.
NEEDED = {
    "statistics": "feature_statistics",
    "top_examples": "feature_top_examples",
    "intervals": "feature_intervals",
    "interval_examples": "feature_interval_examples",
    "logit_effects": "feature_logit_effects",
    "head_attribution": "feature_head_attribution",
    "dfa": "feature_dfa",
}
OPTIONAL = {
    "dfa_matrix": "feature_dfa_matrix",
    "rdfa": "feature_rdfa",
    "ngrams": "feature_ngrams",
    "neighbours": "feature_neighbours",
    "families": "feature_families",
    "proxies": "feature_proxies",
    "proxy_histogram": "feature_proxy_histogram",
    "proxy_examples": "feature_proxy_examples",
    "labels": "feature_labels",
}
# Tables with one partition for all layers of a study.
OF_STUDY = ("feature_labels",)
HEAD_ROLES = "SELECT * FROM head_roles WHERE study = $study AND layer = $layer"
# Frames that the layer's index needs for every feature, whichever have pages.
_WHOLE = {"statistics", "head_attribution", "families", "proxies", "labels"}

Read = Callable[[str], pl.LazyFrame | None]


def layer_frames(
    read: Read,
    layer: int,
    features: Sequence[int],
    *,
    whole: bool,
    names: pl.DataFrame | None = None,
    head_roles: pl.DataFrame | None = None,
    ioi_edges: pl.DataFrame | None = None,
) -> LayerFrames:
    """Frames for the pages of `features`.

    Args:
        read: current rows of a table for the layer; None where an optional table has none or is
            not there. Tables in OF_STUDY have the rows of all layers.
        layer: layer.
        features: features that get a page.
        whole: keep what the layer's index shows of every feature.
        names: of all features (`all_names`), if they have been read already.
        head_roles: rows of the view head_roles of the layer.
        ioi_edges: rows of trace_graph of the layer (`edges_of_layer`).
    """
    wanted = _rows_of("feature", pl.Series(list(features), dtype=pl.Int32))
    lazy = {name: read(table) for name, table in {**NEEDED, **OPTIONAL}.items()}
    missing = [NEEDED[name] for name in NEEDED if lazy[name] is None]
    if missing:
        raise ValueError(f"layer {layer} has no rows of {missing}; materialize these assets")
    cut = {}
    for name, rows in lazy.items():
        if rows is None:
            continue
        if name in OPTIONAL and OPTIONAL[name] in OF_STUDY:
            rows = rows.filter(pl.col("layer") == layer)
        cut[name] = rows if whole and name in _WHOLE else rows.filter(wanted)
    if whole and names is None:
        names = all_names(read)
    frames = dict(zip(cut, pl.collect_all(cut.values()), strict=True))
    return LayerFrames(
        **frames,
        names=names,
        activations=_activations(read, frames["interval_examples"]),
        head_roles=head_roles,
        ioi_edges=ioi_edges,
    )


def all_names(read: Read) -> pl.DataFrame | None:
    """Frame `names` of all features of the layer."""
    examples, effects = read("feature_top_examples"), read("feature_logit_effects")
    if examples is None or effects is None:
        return None
    return feature_names(examples, effects).collect()


def edges_of_layer(edges: pl.DataFrame, layer: int) -> pl.DataFrame:
    """Rows of trace_graph, task ioi, in which a head of the layer takes part."""
    of_ioi = edges.filter(task="ioi")
    return of_ioi.filter(
        (pl.col("upstream_layer") == layer) | (pl.col("downstream_layer") == layer)
    )


# ---- private -------------------------------------------------------------------------------------


def _rows_of(column: str, values: pl.Series) -> pl.Expr:
    """Rows with one of `values`; bounds first, so that files are skipped by their statistics."""
    if len(values) == 1:
        return pl.col(column) == pl.lit(values.item())
    bounds: pl.Expr = pl.col(column).is_between(pl.lit(values.min()), pl.lit(values.max()))
    return bounds & pl.col(column).is_in(values.implode())


def _activations(read: Read, examples: pl.DataFrame) -> pl.DataFrame | None:
    """feature_activations of each example's feature in each example's sequence."""
    found = read("feature_activations")
    if found is None:
        return None
    pairs = examples.select("feature", "sequence").unique()
    inside = _rows_of("feature", pairs["feature"].unique())
    there = pl.col("sequence").is_in(pairs["sequence"].unique().implode())
    return (
        found.filter(inside & there)
        .join(pairs.lazy(), on=["feature", "sequence"], how="semi")
        .select("feature", "sequence", "position", "activation")
        .collect()
    )
