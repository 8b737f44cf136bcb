"""Which columns name an edge of a trace, and the pair of its reader.

Belongs here: the columns of trace_edges by which edges are told apart, and an edge's name.
Does not belong here: edits of edges (kinds/edge.py), their choice (edge_choice.py).
"""

from typing import NamedTuple

import polars as pl

PAIR_KEY = ("downstream_layer", "downstream_head", "destination_role", "source_role")


class EdgeKey(NamedTuple):
    """An edge: what an upstream head writes on one side of a pair of a downstream head."""

    upstream_layer: int
    upstream_head: int
    downstream_layer: int
    downstream_head: int
    destination_role: str
    source_role: str
    side: str

    def __str__(self) -> str:
        return (
            f"L{self.upstream_layer}H{self.upstream_head}"
            f">L{self.downstream_layer}H{self.downstream_head}"
            f":{self.destination_role}<-{self.source_role}:{self.side}"
        )

    @property
    def pair(self) -> tuple[int, int, str, str]:
        """The reader's head and the roles of its pair, as in PAIR_KEY."""
        return self.downstream_layer, self.downstream_head, self.destination_role, self.source_role


EDGE_KEY = EdgeKey._fields


def own_token_edges(edges: pl.DataFrame) -> pl.DataFrame:
    """Rows of trace_edges or trace_graph, without heads that wrote at another token than
    that of the pair's side (rule relative): an edge is edited at the pair's own tokens. Frames that
    say nothing of it are left as they are.
    """
    if "written_at" in edges.columns:
        written, destination, source = "written_at", "destination", "source"
    elif "written_role" in edges.columns:
        written, destination, source = "written_role", "destination_role", "source_role"
    else:
        return edges
    own = pl.when(pl.col("side") == "destination").then(destination).otherwise(source)
    return edges.filter(pl.col("upstream_head").is_null() | (pl.col(written) == own))
