"""Growing an attribution tree: which parts become rows, and the frame of them.

Belongs here: everything that does not depend on what a node is. A node knows its value and how to
split itself into parts that sum to it; splitting is rdfa.py's.

Growth: of a node's parts, constants and errors always become nodes; of the others, the `branching`
largest by absolute value that reach `min_share` of the root. What remains becomes one node `rest`
with the sum of their values, so that every level still sums to its parent. Nodes are split largest
first until `max_nodes`.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from mechinterp_assets.attribution.settings import RdfaSettings

TREE_SCHEMA = pl.Schema(
    {
        "node": pl.Int32(),
        "parent": pl.Int32(),
        "depth": pl.Int32(),
        "node_kind": pl.String(),
        "at_layer": pl.Int32(),
        "at_head": pl.Int32(),
        "at_feature": pl.Int32(),
        "at_position": pl.Int32(),
        "token_id": pl.Int32(),
        "strongest_head": pl.Int32(),
        "activation": pl.Float64(),
        "gain": pl.Float64(),
        "n_left_out": pl.Int32(),
        "dfa": pl.Float64(),
        "share_of_parent": pl.Float64(),
        "share_of_root": pl.Float64(),
        "identity_error": pl.Float64(),
    }
)


@dataclass(frozen=True)
class Node:
    """A part of the root's value.

    kind: what it is (comments of feature_rdfa.node_kind); value: contribution to the root; split:
    gives the parts that sum to it, None for what is not split; always_shown: never part of `rest`.
    The other fields are columns of the table.
    """

    kind: str
    value: float
    split: "Callable[[], Sequence[Node]] | None" = None
    always_shown: bool = False
    layer: int | None = None
    head: int | None = None
    feature: int | None = None
    position: int | None = None
    token_id: int | None = None
    strongest_head: int | None = None
    activation: float | None = None
    gain: float | None = None
    n_left_out: int | None = None


def grow(root: Node, settings: RdfaSettings) -> pl.DataFrame:
    """Frame of TREE_SCHEMA, one row per node, in depth-first order, the root first.

    Siblings stand in descending order of absolute value, constants, errors and rest after the
    others.
    """
    top = _Placed(root)
    n_nodes, ticket = 1, 0
    waiting: list[tuple[float, int, _Placed]] = [(-abs(root.value), ticket, top)]
    while waiting:
        _, _, placed = heapq.heappop(waiting)
        assert placed.node.split is not None
        parts = placed.node.split()
        shown = _shown(parts, settings, abs(root.value))
        if placed is not top and n_nodes + len(shown) > settings.max_nodes:
            break
        n_nodes += len(shown)
        placed.children = [_Placed(part) for part in shown]
        for child in placed.children:
            if child.node.split is not None:
                ticket += 1
                heapq.heappush(waiting, (-abs(child.node.value), ticket, child))
    rows: list[dict[str, object]] = []
    _write(top, None, 0, root.value, rows)
    return pl.DataFrame(rows, schema=TREE_SCHEMA)


# ---- private -------------------------------------------------------------------------------------


@dataclass
class _Placed:
    node: Node
    children: "list[_Placed]" = field(default_factory=list)


def _shown(parts: Sequence[Node], settings: RdfaSettings, root: float) -> list[Node]:
    """Parts that become nodes, in their order, and the rest of them as one."""
    chosen = sorted((p for p in parts if not p.always_shown), key=lambda part: -abs(part.value))
    kept = [p for p in chosen[: settings.branching] if abs(p.value) >= settings.min_share * root]
    left_out = chosen[len(kept) :]
    always = [part for part in parts if part.always_shown]
    if left_out:
        rest = math.fsum(part.value for part in left_out)
        always.append(Node("rest", rest, n_left_out=len(left_out)))
    return kept + always


def _write(
    placed: _Placed,
    parent: tuple[int, float] | None,
    depth: int,
    root: float,
    rows: list[dict[str, object]],
) -> None:
    node, number = placed.node, len(rows)
    total = math.fsum(child.node.value for child in placed.children)
    rows.append(
        {
            "node": number,
            "parent": None if parent is None else parent[0],
            "depth": depth,
            "node_kind": node.kind,
            "at_layer": node.layer,
            "at_head": node.head,
            "at_feature": node.feature,
            "at_position": node.position,
            "token_id": node.token_id,
            "strongest_head": node.strongest_head,
            "activation": node.activation,
            "gain": node.gain,
            "n_left_out": node.n_left_out,
            "dfa": node.value,
            "share_of_parent": node.value / parent[1] if parent is not None and parent[1] else None,
            "share_of_root": node.value / root if root else None,
            "identity_error": abs(total - node.value) if placed.children else None,
        }
    )
    for child in placed.children:
        _write(child, (number, node.value), depth + 1, root, rows)
