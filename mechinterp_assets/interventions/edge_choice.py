"""Which traced edges are edited, with their random controls.

Belongs here: the choice of edges from a trace and the interventions on them. Does not belong here:
kind edge (kinds/edge.py), the edges of published experiments (published_fc24.py), running.
"""

from collections.abc import Sequence

import polars as pl

from mechinterp_assets.interventions.edge_keys import EDGE_KEY, own_token_edges
from mechinterp_assets.interventions.kinds.edge import EdgeMode, EdgeReceiver, EditEdge, Occurrence
from mechinterp_assets.interventions.terms import InterventionError, Scope


def heaviest_edges(trace_edges: pl.DataFrame, n_edges: int) -> pl.DataFrame:
    """The `n_edges` edges between heads with the largest sum of contributions over prompts.

    trace_edges: frame trace_edges. An edge is a row of trace_graph: upstream and downstream
    head, roles of the pair, side; only kept rows count. Returns the key columns, n_prompts and
    contribution (the sum), heaviest first.
    """
    if n_edges < 1:
        raise InterventionError(f"n_edges is {n_edges}; ask for at least 1")
    return (
        own_token_edges(trace_edges.filter((pl.col("upstream_kind") == "head") & pl.col("kept")))
        .group_by(EDGE_KEY)
        .agg(pl.col("prompt").n_unique().alias("n_prompts"), pl.col("contribution").sum())
        .sort("contribution", *EDGE_KEY, descending=[True, *[False] * len(EDGE_KEY)])
        .head(n_edges)
    )


def edge_interventions(
    edges: pl.DataFrame,
    *,
    modes: Sequence[EdgeMode] = ("ablate", "boost"),
    scopes: Sequence[Scope] = ("local", "global"),
    n_controls: int = 1,
    seed: int = 0,
    authors_receiver: bool = False,
    occurrence: Occurrence = "kept",
) -> list[EditEdge]:
    """Every edge in every mode and scope, with its controls (seeds seed .. seed + n_controls - 1).

    edges: rows with the key columns, as `heaviest_edges` returns them. Local edits go through q
    (destination side) or k (source side); `authors_receiver` adds the variant through q, k and v.
    """
    interventions: list[EditEdge] = []
    for edge in edges.select(EDGE_KEY).iter_rows(named=True):
        own: EdgeReceiver = "q" if edge["side"] == "destination" else "k"
        local: tuple[EdgeReceiver, ...] = (own, "qkv") if authors_receiver else (own,)
        variants = [(s, r) for s in scopes for r in (local if s == "local" else (None,))]
        for control in (None, *range(seed, seed + n_controls)):
            for scope, receiver in variants:
                interventions += [
                    EditEdge(
                        mode=mode,
                        layer=edge["downstream_layer"],
                        head=edge["downstream_head"],
                        upstream_layer=edge["upstream_layer"],
                        upstream_head=edge["upstream_head"],
                        destination_role=edge["destination_role"],
                        source_role=edge["source_role"],
                        side=edge["side"],
                        scope=scope,
                        receiver=receiver,
                        is_control=control is not None,
                        seed=control,
                        occurrence=occurrence,
                    )
                    for mode in modes
                ]
    return interventions
