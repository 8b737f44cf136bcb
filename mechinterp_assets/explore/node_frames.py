"""Nodes of an attribution as rows, and their addresses.

Belongs here: one name per node among its siblings, so that a path of names opens the same node
again; frames of nodes. Does not belong here: how nodes are split (attribution/rdfa_splits.py).
"""

from collections.abc import Iterable, Sequence

import polars as pl

from mechinterp_assets.attribution.rdfa_tree import Node
from mechinterp_assets.explore.errors import ExploreError

NODE_SCHEMA = pl.Schema(
    {
        "name": pl.String(),
        "node_kind": pl.String(),
        "layer": pl.Int32(),
        "head": pl.Int32(),
        "feature": pl.Int32(),
        "position": pl.Int32(),
        "token_id": pl.Int32(),
        "token": pl.String(),
        "strongest_head": pl.Int32(),
        "activation": pl.Float64(),
        "gain": pl.Float64(),
        "value": pl.Float64(),
        "can_split": pl.Boolean(),
    }
)


def node_name(node: Node) -> str:
    """Its address among its siblings: kind, then what tells it apart, `source:p3:h1`."""
    marks = (("L", node.layer), ("h", node.head), ("f", node.feature))
    parts = [f"{letter}{value}" for letter, value in marks if value is not None]
    if node.kind == "source":
        parts.append(f"p{node.position}")
    return ":".join((node.kind, *parts))


def node_frame(nodes: Iterable[Node], strings: Sequence[str]) -> pl.DataFrame:
    """Frame of NODE_SCHEMA, the largest absolute value first; strings: label of each token id."""
    rows = [
        {
            "name": node_name(node),
            "node_kind": node.kind,
            "layer": node.layer,
            "head": node.head,
            "feature": node.feature,
            "position": node.position,
            "token_id": node.token_id,
            "token": None if node.token_id is None else strings[node.token_id],
            "strongest_head": node.strongest_head,
            "activation": node.activation,
            "gain": node.gain,
            "value": node.value,
            "can_split": node.split is not None,
        }
        for node in nodes
    ]
    return pl.DataFrame(rows, schema=NODE_SCHEMA).sort(
        pl.col("value").abs(), descending=True, maintain_order=True
    )


def follow(root: Node, path: Sequence[str]) -> Node:
    """The node that `path` leads to, by names of children. Raises ExploreError."""
    node = root
    for name in path:
        found = [] if node.split is None else node.split()
        matching = [child for child in found if node_name(child) == name]
        if not matching:
            raise ExploreError(
                f"{node_name(node)} has no part {name!r}; open the parts of a node to see them"
            )
        node = matching[0]
    return node
