"""The index of a study's heads: maps of scores, and a table of all heads to sort and search.

Belongs here: what it shows. How it looks is in templates/.
"""

import math
from typing import Any

import polars as pl
from markupsafe import Markup

from mechinterp_assets.dashboards.charts import heat_map, number, signed
from mechinterp_assets.dashboards.head_frames import HeadFrames
from mechinterp_assets.dashboards.places import head_page
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.model.names import head_name

SHOWN_ROWS = 40  # of the table of heads until more are asked for
ABLATION = {"task": "ioi", "mode": "zero", "metric": "logit_diff", "position_role": "all"}


def heads_content(frames: HeadFrames, study: str) -> dict[str, Any]:
    """Values of the template heads.html, without links to other pages."""
    heads = frames.heads
    roles: dict[tuple[int, int], list[str]] = {}
    if frames.roles is not None:
        for layer, head, role in frames.roles.select("layer", "head", "role").iter_rows():
            roles.setdefault((layer, head), []).append(str(role).replace("_", " "))
    effects = _ablation_effects(frames)
    edges = _edge_counts(frames)
    clusters = _clusters(frames)
    classes = _classes(frames)
    # The longer side of a map lies across the page, which is wider than it is high.
    across = frames.scores["layer"].n_unique() > frames.scores["head"].n_unique()
    sql = filled_statements(study)
    return {
        "rows": [
            {
                "name": head_name(layer, head),
                "href": head_page(layer, head),
                "order": i,
                "roles": sorted(roles.get((layer, head), [])),
                "effect": signed(effects[layer, head]) if (layer, head) in effects else "–",
                "n_in": edges.get((layer, head), (0, 0))[0],
                "n_out": edges.get((layer, head), (0, 0))[1],
                "clusters": clusters.get((layer, head), "–"),
                "classes": classes.get((layer, head), []),
            }
            for i, (layer, head) in enumerate(heads)
        ],
        "shown_rows": SHOWN_ROWS,
        "n_roles": len(roles),
        "n_several": sum(len(set(found)) > 1 for found in roles.values()),
        "has_effects": bool(effects),
        "has_edges": bool(edges),
        "has_clusters": bool(clusters),
        "has_classes": bool(classes),
        "maps": _maps(frames, effects, across=across),
        "layers_across": across,
        "sql": {**sql, "provenance": sql["head_provenance"]},
    }


# ---- private -------------------------------------------------------------------------------------


def _ablation_effects(frames: HeadFrames) -> dict[tuple[int, int], float]:
    if frames.effects is None:
        return {}
    chosen = frames.effects.filter(
        pl.all_horizontal(pl.col(name) == value for name, value in ABLATION.items())
    )
    rows = chosen.select("layer", "head", "mean_effect").iter_rows()
    return {(layer, head): effect for layer, head, effect in rows}


def _edge_counts(frames: HeadFrames) -> dict[tuple[int, int], tuple[int, int]]:
    """Other heads that a head reads from and writes to in the trace of IOI prompts."""
    if frames.edges is None:
        return {}
    edges = frames.edges.filter(pl.col("task") == "ioi")
    down = ("downstream_layer", "downstream_head")
    up = ("upstream_layer", "upstream_head")
    pairs = set(edges.select(*down, *up).iter_rows())
    found: dict[tuple[int, int], list[int]] = {}
    for down_layer, down_head, up_layer, up_head in pairs:
        found.setdefault((down_layer, down_head), [0, 0])[0] += 1
        found.setdefault((up_layer, up_head), [0, 0])[1] += 1
    return {at: (n_in, n_out) for at, (n_in, n_out) in found.items()}


def _clusters(frames: HeadFrames) -> dict[tuple[int, int], str]:
    if frames.proxy is None:
        return {}
    rows = frames.proxy.filter(pl.col("measure") == "ngrams")
    return {
        (layer, head): f"{n} (random {number(null)})"
        for layer, head, n, null in rows.select(
            "layer", "head", "n_clusters", "null_n_clusters"
        ).iter_rows()
    }


def _classes(frames: HeadFrames) -> dict[tuple[int, int], list[str]]:
    if frames.labels is None:
        return {}
    found: dict[tuple[int, int], list[str]] = {}
    rows = frames.labels.filter(pl.col("feature").is_null()).sort("layer", "head", "rater")
    for layer, head, given in rows.select("layer", "head", "class").iter_rows():
        if given not in found.setdefault((layer, head), []):
            found[layer, head].append(given)
    return found


def _maps(
    frames: HeadFrames, effects: dict[tuple[int, int], float], *, across: bool
) -> list[dict[str, Any]]:
    """A map of layers by heads for every score with a threshold, and for the ablation effect."""
    layers = [int(layer) for layer in frames.scores["layer"].unique().sort()]
    heads = [int(head) for head in frames.scores["head"].unique().sort()]
    values: dict[str, dict[tuple[int, int], float]] = {}
    scored = frames.scores.filter(pl.col("threshold").is_not_null()).sort("score")
    for score, layer, head, value in scored.select("score", "layer", "head", "value").iter_rows():
        values.setdefault(str(score), {})[layer, head] = value
    pictures = [(name.replace("_", " "), found) for name, found in values.items()]
    if effects:
        pictures.append(("effect of zero ablation on the logit difference", effects))
    return [
        {
            "title": title,
            "range": _range(list(found.values())),
            "chart": _map(title, found, layers, heads, across=across),
        }
        for title, found in pictures
    ]


def _map(
    title: str,
    found: dict[tuple[int, int], float],
    layers: list[int],
    heads: list[int],
    *,
    across: bool,
) -> Markup:
    rows, columns = (heads, layers) if across else (layers, heads)
    values = [
        [_finite(found.get((column, row) if across else (row, column))) for column in columns]
        for row in rows
    ]
    return heat_map(
        values,
        label=f"{title} by layer and head",
        rows=[f"H{row}" if across else f"L{row}" for row in rows],
        totals=[""] * len(rows),
        columns=_ticks(columns),
        titles=[f"layer {column}" if across else f"head {column}" for column in columns],
        turned=False,
    )


def _ticks(columns: list[int]) -> list[str]:
    """Names of columns, every second where they would touch."""
    every = 1 if len(columns) <= 12 else 2
    return [str(column) if i % every == 0 else "" for i, column in enumerate(columns)]


def _range(values: list[float]) -> str:
    finite = [value for value in values if value is not None and not math.isnan(value)]
    return f"{number(min(finite))} to {number(max(finite))}" if finite else ""


def _finite(value: float | None) -> float:
    return 0.0 if value is None or math.isnan(value) else value
