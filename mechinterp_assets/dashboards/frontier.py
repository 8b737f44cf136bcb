"""The page of a sweep: L0 against CE loss recovered, a panel per layer, a line per architecture.

Belongs here: the picture, its thumbnail for Dagster, and the page. Does not belong here: how the
SAEs were trained and measured (sae/).
"""

import colorsys
import html
import math
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import DATA_URI_LIMIT, number
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template
from mechinterp_assets.sae.traits import architecture_names
from mechinterp_assets.storage.provenance import Provenance

# Okabe and Ito's palette: told apart by colour-blind readers, on light and dark grounds. An
# architecture has the colour of its place among all of them; those beyond the palette get hues.
PALETTE = ("#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#0072b2", "#d55e00")
GOLDEN_ANGLE = 137.5
WIDTH, HEIGHT = 300, 210
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 24, 34
COLUMNS = {
    "l0": "mean number of active features per token",
    "ce_recovered": "share of the cross-entropy lost by zero ablation that splicing gets back",
    "ce_recovered_mean": "the same against mean ablation",
    "explained_variance": "1 - residual variance / total variance",
    "kl": "mean KL(clean || spliced), nats",
    "dead_fraction": "share of features that never fired on the held-out tokens",
}


def render_frontier(
    folder: Path, frontier: pl.DataFrame, *, model: str, provenance: Provenance
) -> Path:
    """Write `folder`/index.html, self-contained, from rows of sae_frontier; gives its path."""
    ordered = frontier.sort("layer", "architecture", "l0", "sae_variant")
    rows = [
        {
            "layer": row["layer"],
            "variant": row["sae_variant"],
            "colour": colour_of(row["architecture"]),
            "cells": [number(row[name]) for name in COLUMNS],
        }
        for row in ordered.to_dicts()
    ]
    text = template("frontier.html").render(
        **page_parts(),
        study=provenance.study,
        figure=frontier_figure(frontier),
        legend=[(name, colour_of(name)) for name in _architectures(frontier)],
        columns=[{"name": name, "help": text} for name, text in COLUMNS.items()],
        rows=rows,
        training_tokens=_span(frontier["training_tokens"]),
        evaluation_tokens=_span(frontier["n_tokens"]),
        sql=filled_statements(provenance.study),
        provenance=provenance_rows(provenance, model, {}),
    )
    path = folder / "index.html"
    path.write_text(text)
    return path


def frontier_figure(frontier: pl.DataFrame) -> Markup:
    """Panels of all layers as one SVG; they share both axes, L0 on a logarithmic one.

    Points without a CE recovered (NULL) are left out, those below the axis drawn at its foot with a
    hollow marker; hovering gives a point's numbers.
    """
    layers = frontier["layer"].unique().sort().to_list()
    columns = min(3, len(layers)) or 1
    rows = math.ceil(len(layers) / columns)
    axes = _Axes.around(frontier)
    panels = []
    for i, layer in enumerate(layers):
        x, y = i % columns * WIDTH, i // columns * HEIGHT
        panel = _panel(frontier.filter(pl.col("layer") == layer), axes, f"Layer {layer}")
        panels.append(f'<g transform="translate({x} {y})">{panel}</g>')
    width, height = columns * WIDTH, rows * HEIGHT
    label = f"L0 against CE loss recovered, {len(layers)} layers"
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="11">{"".join(panels)}</svg>'
    )


def frontier_thumbnail(frontier: pl.DataFrame) -> str:
    """One layer's lines as a data:image/svg+xml URI of fewer than 1,000 characters.

    Where they do not fit, lines keep fewer of their points, evenly spread.
    """
    axes = _Axes.around(frontier)
    keep = 32
    while True:
        lines = []
        for name in _architectures(frontier):
            points = _thinned(_points(frontier, name), keep)
            path = " ".join(
                f"{round(120 * axes.across(l0))},{round(60 * (1 - axes.up(ce)))}"
                for l0, ce, _ in points
            )
            lines.append(f"<polyline points='{path}' stroke='{colour_of(name)}'/>")
        svg = (
            "<svg xmlns='http://www.w3.org/2000/svg' width='124' height='64' viewBox='-2 -2 124 "
            f"64' fill='none' stroke-width='2'>{''.join(lines)}</svg>"
        )
        uri = "data:image/svg+xml," + quote(svg, safe="=:/',;-.")
        if len(uri) < DATA_URI_LIMIT:
            return uri
        keep -= 1


def colour_of(architecture: str) -> str:
    """Colour of an architecture's line: #rrggbb, its own among all architectures there are."""
    place = architecture_names().index(architecture)
    if place < len(PALETTE):
        return PALETTE[place]
    hue = (place - len(PALETTE)) * GOLDEN_ANGLE % 360 / 360
    red, green, blue = (round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.45, 0.6))
    return f"#{red:02x}{green:02x}{blue:02x}"


# ---- private -------------------------------------------------------------------------------------


class _Axes:
    """Shared scales: log10 L0, and CE recovered from 0 (or the least above) to 1."""

    def __init__(self, l0: tuple[float, float], ce: tuple[float, float]) -> None:
        self.l0, self.ce = l0, ce

    @classmethod
    def around(cls, frontier: pl.DataFrame) -> "_Axes":
        l0 = [max(value, 0.1) for value in frontier["l0"].to_list()] or [1.0]
        ce = [value for value in frontier["ce_recovered"].to_list() if value is not None]
        low, high = min(l0) / 1.3, max(l0) * 1.3
        foot = math.floor(10 * max(0.0, min([*ce, 1.0]) - 0.02)) / 10
        return cls((low, high), (min(foot, 0.9), max([1.0, *ce])))

    def across(self, l0: float) -> float:
        """0 to 1 from left to right."""
        low, high = self.l0
        return math.log(max(l0, 0.1) / low) / math.log(high / low)

    def up(self, ce: float) -> float:
        """0 to 1 from bottom to top; what is below the axis is at its foot."""
        low, high = self.ce
        return max(0.0, (ce - low) / (high - low))

    def ticks(self) -> tuple[list[float], list[float]]:
        """Values to mark across and up."""
        low, high = self.l0
        powers = [2.0**i for i in range(-4, 16) if low <= 2.0**i <= high]
        foot, top = self.ce
        step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1e9) if (top - foot) / s <= 6)
        first = math.ceil(foot / step - 1e-9)
        heights = [i * step for i in range(first, math.floor(top / step + 1e-9) + 1)]
        return powers[:: max(1, math.ceil(len(powers) / 6))], heights


def _panel(frontier: pl.DataFrame, axes: _Axes, title: str) -> str:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(l0: float, ce: float) -> tuple[float, float]:
        return LEFT + width * axes.across(l0), TOP + height * (1 - axes.up(ce))

    parts = [f'<text x="{LEFT}" y="15" fill="currentColor" font-weight="600">{title}</text>']
    across, up = axes.ticks()
    foot = TOP + height
    for value in up:
        y = place(axes.l0[0], value)[1]
        parts.append(
            f'<path d="M{LEFT} {y:.1f}h{width}" stroke="#8884"/>'
            f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end" fill="currentColor">'
            f"{value:.3g}</text>"
        )
    for value in across:
        x = place(value, axes.ce[0])[0]
        parts.append(
            f'<path d="M{x:.1f} {foot}v4" stroke="#888"/><text x="{x:.1f}" y="{foot + 16}" '
            f'text-anchor="middle" fill="currentColor">{value:g}</text>'
        )
    parts.append(
        f'<path d="M{LEFT} {TOP}V{foot}h{width}" fill="none" stroke="#888"/>'
        f'<text x="{LEFT + width / 2:.0f}" y="{foot + 29}" text-anchor="middle" '
        f'fill="currentColor">L0</text><text transform="translate(11 {TOP + height / 2:.0f}) '
        f'rotate(-90)" text-anchor="middle" fill="currentColor">CE recovered</text>'
    )
    for name in _architectures(frontier):
        points = _points(frontier, name)
        places = [place(l0, ce) for l0, ce, _ in points]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        colour = colour_of(name)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (l0, ce, variant) in zip(places, points, strict=True):
            fill = colour if ce >= axes.ce[0] else "none"
            text = html.escape(f"{variant}: L0 {l0:.3g}, CE recovered {ce:.4g}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}">'
                f"<title>{text}</title></circle>"
            )
    return "".join(parts)


def _architectures(frontier: pl.DataFrame) -> list[str]:
    return sorted(set(frontier["architecture"]))


def _points(frontier: pl.DataFrame, architecture: str) -> list[tuple[float, float, str]]:
    """(l0, ce_recovered, sae_variant) of one line, in order of L0."""
    of_line = frontier.filter(
        (pl.col("architecture") == architecture) & pl.col("ce_recovered").is_not_null()
    )
    return of_line.sort("l0").select("l0", "ce_recovered", "sae_variant").rows()


def _thinned(
    points: Sequence[tuple[float, float, str]], keep: int
) -> Sequence[tuple[float, float, str]]:
    if len(points) <= keep:
        return points
    last = len(points) - 1
    return [points[round(i * last / max(1, keep - 1))] for i in range(keep)]


def _span(values: pl.Series) -> str:
    low, high = min(values.to_list()), max(values.to_list())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
