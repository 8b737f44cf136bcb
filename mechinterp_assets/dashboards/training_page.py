"""The page of how a study's SAEs were trained: curves by layer, and where they ended.

Belongs here: what the page shows, and curves that comparison pages share. Does not belong here:
geometry (plots.py), the statement (sql/dashboards/training_curves.sql).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from mechinterp_assets.dashboards.charts import amount
from mechinterp_assets.dashboards.places import layer_href
from mechinterp_assets.dashboards.plots import N_COLOURS, Point, colour, line_plot
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template
from mechinterp_assets.storage.declarations import table_specs
from mechinterp_assets.storage.provenance import Provenance

TABLES = ("sae_training_log",)
Query = Callable[[str], pl.DataFrame]
MAX_POINTS = 60  # of a curve; where there are more, evenly spread ones
# Columns of sae_training_log that are drawn, with their names on the page.
CURVES = {
    "batch_explained_variance": "explained variance",
    "l0": "L0",
    "recent_dead_fraction": "share dead of late",
    "training_loss": "training loss",
}
_DIGITS = 4  # that are drawn: the mean L0 of a TopK SAE differs from k in the sixth
# Where a training starts is far off the axis of the rest: the first tenth of the loss is left out.
_WARM_UP = {"training_loss": 0.1}


def render_training(
    query: Query, *, provenance: Provenance, model: str, study_href: str, has_layer: set[int]
) -> str | None:
    """HTML of a study's page; None where no SAE of it was trained.

    Args:
        query: runs one statement, with the study filled in, on its tables.
        provenance: of the study, which it names.
        model: its name, for display.
        study_href: address of the study's page.
        has_layer: layers with pages of their features.
    """
    sql = filled_statements(provenance.study)
    log = query(sql["training_curves"])
    if log.is_empty():
        return None
    layers = log["layer"].unique().sort().to_list()
    lines = {f"layer {layer}": log.filter(pl.col("layer") == layer) for layer in layers}
    return template("training.html").render(
        **page_parts("tables.js"),
        study=provenance.study,
        study_href=study_href,
        plots=training_plots(lines),
        legend=[(name, colour(i)) for i, name in enumerate(lines)] if len(lines) > 1 else [],
        shared_colours=len(lines) > N_COLOURS,
        columns=[_column(name) for name in ("training_tokens", *CURVES)],
        rows=[
            {
                "layer": layer,
                "href": layer_href(provenance.study, layer) if layer in has_layer else "",
                "cells": [amount(own[name][-1]) for name in ("training_tokens", *CURVES)],
                "resampled": int(own["resampled_features"].sum()),
            }
            for layer, own in zip(layers, lines.values(), strict=True)
        ],
        provenance=provenance_rows(provenance, model, {}),
        sql={**sql, "provenance": ""},
    )


def training_plots(lines: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """A plot per column of CURVES, a line per frame of sae_training_log (ordered by step)."""
    return [
        {
            "title": title,
            "term": f"sae_training_log.{name}",
            "help": _column(name)["help"],
            "picture": line_plot(
                [(of, _points(log, name)) for of, log in lines.items()],
                label=f"{title} over training",
                x_axis="training tokens",
                y_axis=title,
                width=480,
                height=190,
            ),
        }
        for name, title in CURVES.items()
    ]


# ---- private -------------------------------------------------------------------------------------


def _points(log: pl.DataFrame, name: str) -> list[Point]:
    kept = _thinned(log.slice(round(_WARM_UP.get(name, 0.0) * log.height)))
    rows = kept.select("training_tokens", name).iter_rows()
    return [
        Point(tokens, None if value is None else float(f"{value:.{_DIGITS}g}"))
        for tokens, value in rows
    ]


def _thinned(log: pl.DataFrame) -> pl.DataFrame:
    """At most MAX_POINTS rows, evenly spread, the first and the last among them."""
    last = log.height - 1
    if last < MAX_POINTS:
        return log
    return log[sorted({round(i * last / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})]


def _column(name: str) -> dict[str, str]:
    columns: Sequence[Any] = table_specs()["sae_training_log"].columns
    help_text = next(column.comment for column in columns if column.name == name)
    title = CURVES.get(name, name.replace("_", " "))
    return {"name": title, "term": f"sae_training_log.{name}", "help": help_text}
