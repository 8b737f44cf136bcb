"""Which tables a layer's pages are made of, and how they are cut to the features shown.

Belongs here: table names and the cut, the same for pages in bulk and on demand. Where tables come
from is the caller's: it passes functions that read them.
"""

from collections.abc import Callable, Sequence

import polars as pl

from mechinterp_assets.dashboards.layer_frames import LayerFrames

# Frame of LayerFrames -> table. The first six are needed, the others are shown where they are.
NEEDED = {
    "statistics": "feature_statistics",
    "top_examples": "feature_top_examples",
    "intervals": "feature_intervals",
    "logit_effects": "feature_logit_effects",
    "head_attribution": "feature_head_attribution",
    "dfa": "feature_dfa",
}
OPTIONAL = {
    "dfa_matrix": "feature_dfa_matrix",
    "interval_examples": "feature_interval_examples",
    "ngrams": "feature_ngrams",
    "neighbours": "feature_neighbours",
    "families": "feature_families",
    "proxies": "feature_proxies",
    "labels": "feature_labels",
}
# Tables with one partition for all layers of a study.
OF_STUDY = ("feature_labels",)
HEAD_ROLES = "SELECT * FROM head_roles WHERE study = $study AND layer = $layer"
# Frames that the layer's index needs for every feature, whichever have pages.
_WHOLE = {"statistics", "head_attribution", "families", "labels"}
_NAMED_BY = ("top_examples", "logit_effects")

Read = Callable[[str], pl.LazyFrame | None]


def layer_frames(
    read: Read,
    layer: int,
    features: Sequence[int],
    *,
    whole: bool,
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
        head_roles: rows of the view head_roles of the layer.
        ioi_edges: rows of ioi_trace_graph of the layer (`edges_of_layer`).
    """
    wanted = pl.col("feature").is_in(pl.Series(list(features), dtype=pl.Int32).implode())
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
        # The index names a feature by its first example and first token.
        first = (pl.col("rank") == 0) if whole and name in _NAMED_BY else pl.lit(False)
        cut[name] = rows if whole and name in _WHOLE else rows.filter(wanted | first)
    frames: dict[str, pl.DataFrame | None] = dict.fromkeys(lazy)
    frames.update(zip(cut, pl.collect_all(cut.values()), strict=True))
    if not whole:
        _add_names_of_neighbours(frames, lazy)
    return LayerFrames(
        **frames,  # type: ignore[arg-type]  # the needed ones are there: read() said so or raised
        activations=_activations(read, frames["interval_examples"]),
        head_roles=head_roles,
        ioi_edges=ioi_edges,
    )


def edges_of_layer(edges: pl.DataFrame, layer: int) -> pl.DataFrame:
    """Rows of ioi_trace_graph in which a head of the layer takes part."""
    return edges.filter((pl.col("upstream_layer") == layer) | (pl.col("downstream_layer") == layer))


# ---- private -------------------------------------------------------------------------------------


def _add_names_of_neighbours(
    frames: dict[str, pl.DataFrame | None], lazy: dict[str, pl.LazyFrame | None]
) -> None:
    """Add first example and first token of the neighbours, by which pages describe them."""
    neighbours = frames["neighbours"]
    if neighbours is None or neighbours.is_empty():
        return
    mine = neighbours["feature"].unique().implode()
    wanted = neighbours["neighbour"].unique().implode()
    named = pl.col("feature").is_in(wanted) & (pl.col("rank") == 0)
    rows = [frame for name in _NAMED_BY if (frame := lazy[name]) is not None]
    found = pl.collect_all([frame.filter(named & ~pl.col("feature").is_in(mine)) for frame in rows])
    for name, more in zip(_NAMED_BY, found, strict=True):
        have = frames[name]
        frames[name] = more if have is None else pl.concat([have, more])


def _activations(read: Read, examples: pl.DataFrame | None) -> pl.DataFrame | None:
    """feature_activations of each example's feature in each example's sequence."""
    found = None if examples is None else read("feature_activations")
    if examples is None or found is None:
        return None
    pairs = examples.select("feature", "sequence").unique()
    inside = pl.col("feature").is_in(pairs["feature"].unique().implode())
    there = pl.col("sequence").is_in(pairs["sequence"].unique().implode())
    return (
        found.filter(inside & there)
        .join(pairs.lazy(), on=["feature", "sequence"], how="semi")
        .select("feature", "sequence", "position", "activation")
        .collect()
    )
