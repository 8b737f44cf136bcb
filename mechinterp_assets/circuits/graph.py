"""The circuit of a trace as one graph over all prompts.

Belongs here: aggregation of edges (table trace_graph), networkx and GraphML forms, a picture.
Does not belong here: tracing (trace.py).

An edge is keyed on upstream head, downstream head, the roles of the downstream pair's destination
and source, the side on which the upstream head wrote and the role of the token where it wrote; the
two sides are never merged. The published graph is in published_graph.py.
"""

import io
from collections.abc import Mapping
from typing import Any

import networkx as nx
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.model.names import head_name

GRAPH_KEY = (
    "upstream_layer",
    "upstream_head",
    "downstream_layer",
    "downstream_head",
    "destination_role",
    "source_role",
    "side",
    "written_role",
)
GRAPH_SCHEMA: dict[str, pl.DataType] = {
    "upstream_layer": pl.Int32(),
    "upstream_head": pl.Int32(),
    "downstream_layer": pl.Int32(),
    "downstream_head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "side": pl.String(),
    "written_role": pl.String(),
    "trace_rule": pl.String(),
    "n_prompts": pl.Int64(),
    "n_pairs": pl.Int64(),
    "path_multiplicity": pl.Float64(),
    "mean_contribution": pl.Float64(),
    "mean_contribution_share": pl.Float64(),
    "mean_exact_effect": pl.Float64(),
    "mean_head_share": pl.Float64(),
    "is_root": pl.Boolean(),
}
NODES_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "layer": pl.Int32(),
    "head": pl.Int32(),
    "destination_role": pl.String(),
    "source_role": pl.String(),
    "n_prompts": pl.Int64(),
    "n_pairs": pl.Int64(),
    "path_multiplicity": pl.Float64(),
    "mean_attention": pl.Float64(),
    "mean_n_slices": pl.Float64(),
    "mean_destination_head_share": pl.Float64(),
    "mean_source_head_share": pl.Float64(),
    "is_root": pl.Boolean(),
}
# Fill of a head by the role at which it acts most: IOI's have their own, other tasks' roles take
# the spare ones in order of their names, and what is left is grey.
ROLE_COLOURS = {
    "END": "#f5b041",
    "S2": "#58d68d",
    "S1": "#a9dfbf",
    "S1+1": "#85c1e9",
    "IO": "#d7bde2",
}
SPARE_COLOURS = ("#f7b7a3", "#f9e79f", "#76d7c4", "#c8b6a6", "#a9dfbf", "#85c1e9", "#d7bde2")
UNNAMED = {"other", "BOS"}
OTHER_COLOUR = "#e5e7e9"
_SIDE_COLOURS = {"destination": "#c0392b", "source": "#2471a3"}


def trace_graph(edges: pl.DataFrame) -> pl.DataFrame:
    """Table trace_graph: kept head-to-head edges aggregated over prompts, heaviest first.

    `edges` is table trace_edges. n_prompts counts distinct prompts, n_pairs distinct
    (prompt, destination, source), path_multiplicity sums paths from roots; means are over rows of
    `edges`: a pair has several where a head wrote for it at several tokens of one role (relative).
    """
    return (
        edges.filter(pl.col("kept") & (pl.col("upstream_kind") == "head"))
        .group_by(*GRAPH_KEY)
        .agg(
            n_prompts=pl.col("prompt").n_unique(),
            n_pairs=pl.struct("prompt", "destination", "source").n_unique(),
            path_multiplicity=pl.col("path_multiplicity").sum(),
            mean_contribution=pl.col("contribution").mean(),
            mean_contribution_share=pl.col("contribution_share").mean(),
            mean_exact_effect=pl.col("exact_effect").mean(),
            mean_head_share=pl.col("head_share").mean(),
            trace_rule=pl.col("trace_rule").first(),
            is_root=pl.col("is_root").any(),
        )
        .select(pl.col(name).cast(dtype) for name, dtype in GRAPH_SCHEMA.items())
        .sort("n_prompts", "n_pairs", *GRAPH_KEY, descending=[True, True, *[False] * 8])
    )


def trace_nodes(slices: pl.DataFrame) -> pl.DataFrame:
    """Traced nodes (head, destination role, source role), most prompts first.

    `slices` is attention_slices of a trace, or traced_nodes of one. Columns: layer, head,
    destination_role, source_role, n_prompts (distinct prompts), n_pairs, path_multiplicity (paths
    from roots, roots themselves counted once), mean_attention, mean_n_slices, mean_head_share of
    either side, is_root.
    """
    key = ("layer", "head", "destination_role", "source_role")
    return (
        slices.filter(pl.col("path_multiplicity") > 0)
        .group_by(*key)
        .agg(
            n_prompts=pl.col("prompt").n_unique().cast(pl.Int64),
            n_pairs=pl.len().cast(pl.Int64),
            path_multiplicity=pl.col("path_multiplicity").sum(),
            mean_attention=pl.col("attention").mean(),
            mean_n_slices=pl.col("n_slices").mean(),
            mean_destination_head_share=pl.col("destination_head_share").mean(),
            mean_source_head_share=pl.col("source_head_share").mean(),
            is_root=pl.col("is_root").any(),
        )
        .sort("n_prompts", "n_pairs", *key, descending=[True, True, *[False] * 4])
    )


def position_colours(graph: pl.DataFrame) -> dict[tuple[int, int], str]:
    """Head -> role of the position at which it acts in most prompts.

    A head acts where it writes: at the destination of its own pairs, or, as an upstream head, where
    it wrote for the downstream pair.
    """
    acts = pl.concat(
        [
            graph.select(
                layer="upstream_layer", head="upstream_head", role="written_role", n="n_prompts"
            ),
            graph.select(
                layer="downstream_layer", head="downstream_head", role="destination_role",
                n="n_prompts",
            ),
        ]
    )  # fmt: skip
    most = (
        acts.group_by("layer", "head", "role")
        .agg(pl.col("n").sum())
        .sort("n", "role", descending=[True, False])
    )
    found: dict[tuple[int, int], str] = {}
    for layer, head, role, _ in most.iter_rows():
        found.setdefault((layer, head), role)
    return found


def coverage_text(nodes: pl.DataFrame) -> str:
    """How much of what traced pairs read heads wrote at all, in a sentence; "" without pairs.

    nodes: trace_nodes of one rule; means over pairs of the shares of absolute contributions.
    """
    pairs = nodes.filter(pl.col("mean_destination_head_share").is_not_null())
    if pairs.is_empty():
        return ""
    weight = pairs["n_pairs"].to_numpy()
    at, source = (
        float((pairs[f"mean_{side}_head_share"].to_numpy() * weight).sum() / weight.sum())
        for side in ("destination", "source")
    )
    return (
        f"Heads wrote {at:.0%} of what is read at destinations and {source:.0%} at sources; "
        "the rest is of MLPs, embeddings and biases"
    )


def role_colours(graph: pl.DataFrame) -> dict[str, str]:
    """Role -> fill, of the roles at which heads of the graph act most; others are OTHER_COLOUR."""
    seen = set(position_colours(graph).values()) - UNNAMED
    known = {role: colour for role, colour in ROLE_COLOURS.items() if role in seen}
    spare = [colour for colour in SPARE_COLOURS if colour not in known.values()]
    return known | dict(zip(sorted(seen - known.keys()), spare, strict=False))


def to_networkx(graph: pl.DataFrame) -> nx.MultiDiGraph:
    """Multigraph with nodes such as L2H3 (attributes layer, head, is_root) and one edge per row.

    Edges run from upstream to downstream; their attributes are the row's other columns.
    """
    result = nx.MultiDiGraph()
    for row in graph.iter_rows(named=True):
        up, down = _end(row, "upstream"), _end(row, "downstream")
        for name, side in ((up, "upstream"), (down, "downstream")):
            if name not in result:
                result.add_node(
                    name, layer=row[f"{side}_layer"], head=row[f"{side}_head"], is_root=False
                )
        result.nodes[down]["is_root"] |= row["is_root"]
        attributes = {
            column: row[column] for column in list(GRAPH_SCHEMA)[4:] if row[column] is not None
        }
        result.add_edge(up, down, **attributes)
    return result


def to_graphml(graph: pl.DataFrame) -> bytes:
    """The graph as GraphML (UTF-8), readable by Gephi, yEd, Cytoscape and networkx."""
    buffer = io.BytesIO()
    nx.write_graphml(to_networkx(graph), buffer)
    return buffer.getvalue()


def graph_picture(
    graph: pl.DataFrame, *, n_edges: int = 60, title: str = "", coverage: str = ""
) -> bytes:
    """The heaviest `n_edges` edges as PNG bytes: one row per layer, later layers above.

    Width of a line: share of prompts (edges that differ by roles alone are drawn as one line per
    side, of their largest count). Red: the upstream head wrote at the destination (query) side,
    blue: at the source (key) side. Fill: role of the position where a head acts most. Roots have a
    thick border. coverage: coverage_text, below the title. Raises CircuitError for no edges.
    """
    if graph.is_empty():
        raise CircuitError("the graph has no edges; no root pair fired, or no head was kept")
    heaviest = graph.sort("n_prompts", "mean_contribution", descending=True).head(n_edges)
    lines = (
        heaviest.group_by(*GRAPH_KEY[:4], "side", maintain_order=True)
        .agg(
            pl.col("n_prompts").max(),
            roles=pl.format("{}\u2192{}", "destination_role", "source_role").first(),
        )
        .to_dicts()
    )
    most = max(line["n_prompts"] for line in lines)
    nodes = to_networkx(heaviest).nodes
    place = layered_places({name: (data["layer"], data["head"]) for name, data in nodes.items()})
    widest = max(abs(x) for x, _ in place.values())

    across = 6 * max(map(len, place)) + 6  # points of a node: wide enough for its name
    height = max(y for _, y in place.values()) + 1
    figure = Figure(figsize=(max(6.0, 2.2 * widest + 3), max(3.5, 1.5 * height + 0.8)), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for line in sorted(lines, key=lambda line: line["n_prompts"]):
        start = place[_end(line, "upstream")]
        end = place[_end(line, "downstream")]
        weight = line["n_prompts"] / most
        bend = 0.12 if line["side"] == "destination" else -0.12
        axes.annotate(
            "",
            xy=end,
            xytext=start,
            arrowprops={
                "arrowstyle": "-|>",
                "color": _SIDE_COLOURS[line["side"]],
                "lw": 0.4 + 3.6 * weight,
                "alpha": 0.25 + 0.65 * weight,
                "shrinkA": across / 2 + 2,
                "shrinkB": across / 2 + 3,
                "connectionstyle": f"arc3,rad={bend}",
            },
        )
    colours, fills = position_colours(heaviest), role_colours(heaviest)
    for name, (x, y) in place.items():
        root = nodes[name]["is_root"]
        role = colours[nodes[name]["layer"], nodes[name]["head"]]
        axes.scatter(
            [x],
            [y],
            s=across**2,
            color=fills.get(role, OTHER_COLOUR),
            zorder=3,
            edgecolor="black",
            linewidth=2.4 if root else 0.9,
        )
        axes.text(x, y, name, ha="center", va="center", fontsize=9, zorder=4)
    layers = {y: nodes[name]["layer"] for name, (_, y) in place.items()}
    axes.set_yticks(list(layers), [f"layer {layer}" for layer in layers.values()])
    axes.set_xticks([])
    axes.set_xlim(-widest - 0.7, widest + 0.7)
    axes.set_ylim(-0.6, height - 0.4)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    for side, colour in _SIDE_COLOURS.items():
        axes.plot([], [], color=colour, label=f"writes at the {side}")
    others = set(colours.values()) - set(fills)
    for role in [*fills, *(["elsewhere"] if others else [])]:
        fill = fills.get(role, OTHER_COLOUR)
        axes.plot([], [], "o", color=fill, markeredgecolor="black", label=f"acts at {role}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.01), ncol=4, frameon=False, fontsize=8)
    heading = title or f"{len(lines)} heaviest edges, widest: {most} prompts"
    axes.set_title(f"{heading}\n{coverage}" if coverage else heading, fontsize=10)
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _end(row: Mapping[str, Any], side: str) -> str:
    return head_name(row[f"{side}_layer"], row[f"{side}_head"])


def layered_places(heads: dict[str, tuple[int, int]]) -> dict[str, tuple[float, float]]:
    """Node -> (x, y): a row per layer that occurs, heads in order, rows centred and staggered."""
    layers = sorted({layer for layer, _ in heads.values()})
    place: dict[str, tuple[float, float]] = {}
    for y, layer in enumerate(layers):
        names = sorted((n for n, at in heads.items() if at[0] == layer), key=lambda n: heads[n][1])
        shift = 0.0 if y % 2 == 0 or len(names) > 1 else 0.25
        for x, name in enumerate(names):
            place[name] = (x - (len(names) - 1) / 2 + shift, float(y))
    return place
