"""The page of a traced circuit: its picture, its edges, what can be asked of them.

Belongs here: the HTML of one study's trace, drawn on the server as SVG. Does not belong here: the
graph (circuits/graph.py), the PNG of it.
"""

from typing import Any

import polars as pl

from mechinterp_assets.circuits.graph import (
    OTHER_COLOUR,
    layered_places,
    position_colours,
    role_colours,
    to_networkx,
)
from mechinterp_assets.dashboards.rendering import page_parts, provenance_rows, template
from mechinterp_assets.storage.provenance import Provenance

_STEP_X, _STEP_Y, _RADIUS = 74, 96, 17
MAX_EDGES = 400


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

    graph: ioi_trace_graph of one task, its MAX_EDGES heaviest edges are drawn; nodes:
    ioi_trace_nodes of the standard rule; roots: layer, head, source, n_prompts, n_firing.
    """
    drawn = graph.sort("n_prompts", "mean_contribution", descending=True).head(MAX_EDGES)
    return template("trace.html").render(
        **page_parts("trace.js"),
        study=provenance.study,
        description=description,
        task=task,
        picture=_picture(drawn),
        edges=drawn.to_dicts(),
        n_edges=graph.height,
        most=int(drawn["n_prompts"].to_numpy().max()) if drawn.height else 0,
        nodes=nodes.sort("n_prompts", descending=True).to_dicts(),
        roots=roots.to_dicts(),
        role_colours=[*role_colours(drawn).items(), ("elsewhere", OTHER_COLOUR)],
        provenance=provenance_rows(provenance, model, {}),
        sql={
            "provenance": "",
            "trace": _QUERY.format(study=_quoted(provenance.study), task=_quoted(task)),
        },
    )


_QUERY = (
    "SELECT * FROM ioi_trace_graph WHERE study = '{study}' AND task = '{task}' "
    "ORDER BY n_prompts DESC, mean_contribution DESC"
)


def _quoted(value: str) -> str:
    return value.replace("'", "''")


def _picture(graph: pl.DataFrame) -> dict[str, Any]:
    """Places of nodes and curves of edges, in pixels; layers go up the page."""
    heads = to_networkx(graph).nodes
    place = layered_places({name: (data["layer"], data["head"]) for name, data in heads.items()})
    if not place:
        return {"width": 0, "height": 0, "nodes": [], "edges": [], "layers": []}
    widest = max(abs(x) for x, _ in place.values())
    top = max(y for _, y in place.values())
    at = {
        name: (70 + (x + widest + 0.5) * _STEP_X, 30 + (top - y) * _STEP_Y)
        for name, (x, y) in place.items()
    }
    roles, fills = position_colours(graph), role_colours(graph)
    most = graph["n_prompts"].to_numpy().max()
    edges = []
    for row in graph.reverse().iter_rows(named=True):  # the heaviest are drawn last, on top
        up = f"{row['upstream_layer']}.{row['upstream_head']}"
        down = f"{row['downstream_layer']}.{row['downstream_head']}"
        (x0, y0), (x1, y1) = at[up], at[down]
        bend = 16 if row["side"] == "destination" else -16
        weight = row["n_prompts"] / most
        edges.append(
            {
                **row,
                "up": up,
                "down": down,
                "path": f"M{x0:.1f} {y0 - _RADIUS:.1f} Q{(x0 + x1) / 2 + bend:.1f} "
                f"{(y0 + y1) / 2:.1f} {x1:.1f} {y1 + _RADIUS + 4:.1f}",
                "width": f"{0.5 + 4 * weight:.2f}",
                "opacity": f"{0.25 + 0.6 * weight:.2f}",
            }
        )
    return {
        "width": round(140 + (2 * widest + 1) * _STEP_X),
        "height": round(60 + top * _STEP_Y),
        "radius": _RADIUS,
        "edges": edges,
        "nodes": [
            {
                "name": name,
                "x": round(x, 1),
                "y": round(y, 1),
                "role": roles[heads[name]["layer"], heads[name]["head"]],
                "colour": fills.get(roles[heads[name]["layer"], heads[name]["head"]], OTHER_COLOUR),
                "is_root": heads[name]["is_root"],
            }
            for name, (x, y) in at.items()
        ],
        "layers": sorted({(heads[name]["layer"], round(y, 1)) for name, (_, y) in at.items()}),
    }
