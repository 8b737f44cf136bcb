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
    wanted = pl.Series(list(features), dtype=pl.Int32).implode()
    frames: dict[str, pl.DataFrame | None] = {}
    neighbours = pl.Series([], dtype=pl.Int32)
    for name, table in {**OPTIONAL, **NEEDED}.items():
        found = read(table)
        if found is None:
            frames[name] = None
            continue
        if not (whole and name in _WHOLE):
            shown = pl.col("feature").is_in(wanted)
            if name in ("top_examples", "logit_effects"):
                # The index and neighbours name a feature by its first example and first token.
                named = pl.lit(True) if whole else pl.col("feature").is_in(neighbours.implode())
                shown = shown | ((pl.col("rank") == 0) & named)
            found = found.filter(shown)
        if table in OF_STUDY:
            found = found.filter(pl.col("layer") == layer)
        frame = found.collect()
        if name == "neighbours":
            neighbours = frame["neighbour"].unique()
        frames[name] = frame
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


def _activations(read: Read, examples: pl.DataFrame | None) -> pl.DataFrame | None:
    """feature_activations of each example's feature in each example's sequence."""
    found = None if examples is None else read("feature_activations")
    if examples is None or found is None:
        return None
    pairs = examples.select("feature", "sequence").unique()
    inside = pl.col("feature").is_in(pairs["feature"].unique().implode())
    return (
        found.filter(inside)
        .join(pairs.lazy(), on=["feature", "sequence"], how="semi")
        .select("feature", "sequence", "position", "activation")
        .collect()
    )
