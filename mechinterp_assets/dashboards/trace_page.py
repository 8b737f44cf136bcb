"""The page of a traced circuit: its picture, its edges, what can be asked of them.

Belongs here: the HTML of one study's trace, drawn on the server as SVG. Does not belong here: the
graph (circuits/graph.py), the PNG of it.
"""

from typing import Any

import polars as pl

from mechinterp_assets.circuits.graph import (
    OTHER_COLOUR,
    coverage_text,
    layered_places,
    position_colours,
    role_colours,
    to_networkx,
)
from mechinterp_assets.dashboards.charts import number
from mechinterp_assets.dashboards.places import experiments_folder, head_href, task_title
from mechinterp_assets.dashboards.queries import filled_statements
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template
from mechinterp_assets.model.names import head_name
from mechinterp_assets.storage.provenance import Provenance

MAX_EDGES = 400
READABLE = 36  # lines that the picture starts with at most
SHOWN_ROWS = 10  # rows of a table until more are asked for
# Blocks of the page of experiments that show what heads read, on the prompts of IOI.
SLICES = {
    "slice-terms": "the terms of a score",
    "slice-prompts": "slices by prompt",
    "slice-usage": "slices by head",
    "slice-counts": "how many slices",
    "slice-contrast": "what S changes",
    "slice-writers": "who wrote it",
    "token-signals": "what tokens carry",
    "token-norms": "which tokens are read",
}
_RULES = {
    "fc24": "fc24: pairs fire with enough attention and a score of at least 0",
    "relative": "relative: pairs fire by attention alone, scores are traced relative to those of "
    "the other sources",
}
# The picture fits a laptop's screen: pixels of its inside, and the steps between columns and rows.
_WIDTH, _HEIGHT = 1120, 470
_STEP_X, _STEP_Y = (38, 190), (16, 60)
_LEFT, _TOP = 30, 42
_LINE = ("upstream_layer", "upstream_head", "downstream_layer", "downstream_head", "side")


def render_trace(
    graph: pl.DataFrame,
    nodes: pl.DataFrame,
    roots: pl.DataFrame,
    provenance: Provenance,
    model: str,
    description: str,
    *,
    task: str = "ioi",
) -> str:
    """Self-contained HTML of a trace; all text is escaped by the template engine.

    graph: trace_graph of one task, its MAX_EDGES heaviest edges are drawn; nodes:
    trace_nodes of the graph's rule; roots: layer, head, source, n_prompts, n_firing.
    """
    study = provenance.study
    drawn = graph.sort("n_prompts", "mean_contribution", descending=True).head(MAX_EDGES)
    lines = _lines(drawn)
    most = int(max((line["n_prompts"] for line in lines), default=0))
    least = _readable(lines)
    return template("trace.html").render(
        **page_parts("tables.js", "zoom.js", "trace.js"),
        study=study,
        description=description,
        task=task,
        title=f"Circuit of {task_title(task)}",
        sentence=_sentence(lines, least, roots),
        coverage=coverage_text(nodes),
        slices=list(SLICES.items()) if task == "ioi" else [],
        experiments_href=f"../{experiments_folder(study)}/index.html",
        rule=_RULES.get(str(graph["trace_rule"][0]), "") if graph.height else "",
        picture=_picture(drawn, lines, study),
        edges=[_with_heads(row, study, "upstream", "downstream") for row in drawn.to_dicts()],
        n_edges=graph.height,
        most=most,
        least=least,
        nodes=[
            _with_heads(row, study, "")
            for row in nodes.sort("n_prompts", descending=True).to_dicts()
        ],
        roots=[_with_heads(row, study, "") for row in roots.to_dicts()],
        role_colours=[*role_colours(drawn).items(), ("elsewhere", OTHER_COLOUR)],
        shown_rows=SHOWN_ROWS,
        number=number,
        provenance=provenance_rows(provenance, model, {}),
        sql={**filled_statements(study, task=task), "provenance": ""},
    )


# ---- private -------------------------------------------------------------------------------------


def _with_heads(row: dict[str, Any], study: str, *ends: str) -> dict[str, Any]:
    """The row with the name and address of its heads: `<end>` and `<end>_href`, or `name`."""
    found = dict(row)
    for end in ends:
        prefix = f"{end}_" if end else ""
        layer, head = row[f"{prefix}layer"], row[f"{prefix}head"]
        found[end or "name"] = head_name(layer, head)
        found[f"{prefix}href"] = head_href(study, layer, head)
    return found


def _lines(graph: pl.DataFrame) -> list[dict[str, Any]]:
    """Edges between two heads on one side as one line: prompts of the largest, the pairs of all."""
    pairs = pl.format("{}, {}", "destination_role", pl.col("source_role").fill_null("–"))
    return (
        graph.group_by(*_LINE, maintain_order=True)
        .agg(pl.col("n_prompts").max(), pairs.unique(maintain_order=True).alias("pairs"))
        .sort("n_prompts", *_LINE, descending=[True, *[False] * len(_LINE)])
        .to_dicts()
    )


def _readable(lines: list[dict[str, Any]]) -> int:
    """The smallest number of prompts from which on at most READABLE lines are drawn."""
    counts = sorted((line["n_prompts"] for line in lines), reverse=True)
    if len(counts) <= READABLE:
        return 1
    return int(min(counts[READABLE] + 1, counts[0]))


def _sentence(lines: list[dict[str, Any]], least: int, roots: pl.DataFrame) -> str:
    """What the picture shows at first, in words."""
    if not lines:
        return "No head was kept as a writer of a root pair."
    kept = [line for line in lines if line["n_prompts"] >= least]
    heads = {_end(line, end) for line in kept for end in ("upstream", "downstream")}
    first = kept[0]
    said = (
        f"{len(kept)} of {len(lines)} connections, between {len(heads)} heads, are in at least "
        f"{least} prompts; the most frequent is {_end(first, 'upstream')} to "
        f"{_end(first, 'downstream')} ({first['pairs'][0]}, {first['side']}) in "
        f"{first['n_prompts']}."
    )
    firing = sorted(row["n_firing"] for row in roots.to_dicts() if row["n_firing"])
    if not firing:
        return said
    n_prompts = max(roots["n_prompts"].to_list())
    return f"{said} Root pairs that fire do so in {_span(firing)} of {n_prompts}."


def _span(counts: list[int]) -> str:
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _end(line: dict[str, Any], end: str) -> str:
    return head_name(line[f"{end}_layer"], line[f"{end}_head"])


def _picture(graph: pl.DataFrame, lines: list[dict[str, Any]], study: str) -> dict[str, Any]:
    """Places of nodes and curves of lines, in pixels: layers from left to right."""
    heads = to_networkx(graph).nodes
    place = layered_places({name: (data["layer"], data["head"]) for name, data in heads.items()})
    if not place:
        return {"width": 0, "height": 0, "nodes": [], "edges": [], "layers": []}
    n_columns = round(max(y for _, y in place.values())) + 1
    widest = max(abs(x) for x, _ in place.values())
    step_x = _within(_WIDTH / max(1, n_columns - 1), _STEP_X)
    step_y = _within(_HEIGHT / max(1.0, 2 * widest), _STEP_Y)
    wide, tall = min(44.0, step_x - 4), min(20.0, step_y - 3)
    at = {
        name: (_LEFT + y * step_x, _TOP + (x + widest) * step_y) for name, (x, y) in place.items()
    }
    roles, fills = position_colours(graph), role_colours(graph)
    most = max(line["n_prompts"] for line in lines)
    edges = []
    for line in reversed(lines):  # the heaviest are drawn last, on top
        up, down = _end(line, "upstream"), _end(line, "downstream")
        span = round((at[down][0] - at[up][0]) / step_x)
        weight = line["n_prompts"] / most
        edges.append(
            {
                **line,
                "up": up,
                "down": down,
                "path": _curve(at[up], at[down], wide / 2, span, line["side"]),
                "width": f"{0.6 + 3.6 * weight:.2f}",
                "opacity": f"{0.3 + 0.6 * weight:.2f}",
                "pairs": "; ".join(line["pairs"]),
            }
        )
    return {
        "width": round(2 * _LEFT + (n_columns - 1) * step_x),
        "height": round(_TOP + 2 * widest * step_y + 24),
        "wide": round(wide, 1),
        "tall": round(tall, 1),
        "edges": edges,
        "nodes": [
            {
                "name": name,
                "label": name if wide >= 36 else f"H{heads[name]['head']}",
                "href": head_href(study, heads[name]["layer"], heads[name]["head"]),
                "x": round(x, 1),
                "y": round(y, 1),
                "layer": heads[name]["layer"],
                "role": roles[heads[name]["layer"], heads[name]["head"]],
                "colour": fills.get(roles[heads[name]["layer"], heads[name]["head"]], OTHER_COLOUR),
                "is_root": heads[name]["is_root"],
            }
            for name, (x, y) in at.items()
        ],
        "layers": [
            {
                "layer": layer,
                "x": round(x, 1),
                "name": f"layer {layer}" if step_x >= 60 else str(layer),
            }
            for layer, x in sorted({(heads[name]["layer"], x) for name, (x, _) in at.items()})
        ],
    }


def _curve(
    start: tuple[float, float], end: tuple[float, float], half: float, span: int, side: str
) -> str:
    """From the right of one head to the left of a later one.

    Lines that pass over several layers are bent, so that they do not run through heads of the same
    row; the two sides are bent in opposite ways.
    """
    x0, x1 = start[0] + half, end[0] - half - 2
    bend = (4 + 7 * min(span - 1, 6)) * (-1 if side == "destination" else 1)
    third = (x1 - x0) / 3
    return (
        f"M{x0:.1f} {start[1]:.1f}C{x0 + third:.1f} {start[1] + bend:.1f} "
        f"{x1 - third:.1f} {end[1] + bend:.1f} {x1:.1f} {end[1]:.1f}"
    )


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, ends[0]), ends[1])
