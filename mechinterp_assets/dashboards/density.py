"""Histogram of features by log10 density, as the view sae_density_histogram counts it.

Belongs here: bins and their chart, shared by the pages of features, layers and studies.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import bar_chart, marked_histogram

BIN = 0.25


def density_counts(statistics: pl.DataFrame) -> dict[float, int]:
    """Features per bin of log10 density, by lower edge; features that never fired are in none."""
    bins = np.floor(statistics["log10_density"].drop_nulls().to_numpy() / BIN)
    edges, counts = np.unique(bins, return_counts=True)
    return {float(e * BIN): int(n) for e, n in zip(edges, counts, strict=True)}


def bin_edges(counts: Mapping[float, int]) -> list[float]:
    """Lower edges of all bins from the first to the last that is not empty."""
    if not counts:
        return []
    n = round((max(counts) - min(counts)) / BIN) + 1
    return [min(counts) + i * BIN for i in range(n)]


def density_chart(counts: Mapping[float, int], edges: Sequence[float], height: int) -> Markup:
    """Bars of features per bin; `edges` are the lower edges of all bins."""
    values = [counts.get(edge, 0) for edge in edges]
    titles = [
        f"log10 density {edge:.2f} to {edge + BIN:.2f}: {value} features"
        for edge, value in zip(edges, values, strict=True)
    ]
    return bar_chart(
        values,
        label="Histogram of features by log10 density; " + "; ".join(titles),
        titles=titles,
        height=height,
        bar_width=18 if height > 40 else 9,
    )


def density_place(counts: Mapping[float, int], log10_density: float | None) -> Markup | str:
    """The same histogram, small, with the bin of one feature marked; empty if it never fired."""
    if log10_density is None or not counts:
        return ""
    edges = bin_edges(counts)
    mark = math.floor(log10_density / BIN) * BIN
    values = [counts.get(edge, 0) for edge in edges]
    place = edges.index(mark) if mark in edges else None
    return marked_histogram(
        values,
        place,
        label=f"Features of this layer by log10 density, {edges[0]:.2f} to "
        f"{edges[-1] + BIN:.2f}; this one: {log10_density:.2f}",
    )
