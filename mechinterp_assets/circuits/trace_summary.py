"""How big a traced circuit is, and how well it agrees with lists of heads.

Belongs here: table trace_summary. Does not belong here: the lists (reference_heads.py).

Overlap of heads is no measure of faithfulness: a circuit can share heads with a published one and
explain little of the behaviour. Random sets of as many heads are therefore beside each number. A
trace goes upstream from its roots: heads behind the last root's layer, and others of that layer,
cannot be in it, and recall and chance are of the heads that can.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from scipy.stats import hypergeom

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.reference_heads import Heads
from mechinterp_assets.circuits.trace_variants import Coverage

Head = tuple[int, int]

COUNTS = ("prompts", "paths")
AS_PUBLISHED = "published"
SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    "trace_rule": pl.String(),
    "counted": pl.String(),
    "min_share": pl.Float64(),
    "min_count": pl.Float64(),
    "n_prompts": pl.Int64(),
    "n_attention_edges": pl.Int64(),
    "n_communication_edges": pl.Int64(),
    "n_nodes": pl.Int64(),
    "n_kept_heads": pl.Int64(),
    "median_destination_head_share": pl.Float64(),
    "median_source_head_share": pl.Float64(),
    "head_list": pl.String(),
    "n_listed": pl.Int64(),
    "n_reachable": pl.Int64(),
    "n_shared": pl.Int64(),
    "precision": pl.Float64(),
    "recall": pl.Float64(),
    "random_precision": pl.Float64(),
    "random_recall": pl.Float64(),
    "p_value": pl.Float64(),
}


@dataclass(frozen=True)
class _Sizes:
    """What a filter keeps."""

    heads: set[Head]
    n_attention_edges: int
    n_communication_edges: int
    n_nodes: int


def reachable_heads(roots: Iterable[Head], n_heads: int) -> frozenset[Head]:
    """Heads that a trace from `roots` can find: these, and all of layers before the last root's."""
    own = set(roots)
    last = max((layer for layer, _ in own), default=0)
    return frozenset(own | {(layer, head) for layer in range(last) for head in range(n_heads)})


def trace_summary(
    nodes: pl.DataFrame,
    edges: pl.DataFrame,
    references: Mapping[str, Heads],
    *,
    n_prompts: int,
    reachable: Heads,
    published: pl.DataFrame | None = None,
    coverage: Mapping[str, Coverage] | None = None,
    min_shares: Sequence[float] = (0.0, 0.05, 0.25, 0.5, 0.664),
) -> pl.DataFrame:
    """Table trace_summary: one row per rule, kind of count, filter and reference list.

    nodes: trace_nodes; edges: trace_variants; published: trace_published, whose rows
    are filtered by published_count and whose heads are the ends of its edges. A filter keeps nodes
    and edges whose count (distinct prompts, or paths) is at least min_share * n_prompts and at
    least 1; 0.664 is 170 of 256, the published filter. reachable: reachable_heads, from which
    random sets of as many heads are drawn. coverage: of each rule. Without references there is one
    row per filter, its comparison NULL.
    """
    if n_prompts <= 0:
        raise CircuitError(f"n_prompts is {n_prompts}; a trace has at least one prompt")
    rows = []
    for rule in dict.fromkeys([*nodes["trace_rule"], *edges["trace_rule"]]):
        own_nodes, own_edges = (frame.filter(trace_rule=rule) for frame in (nodes, edges))
        graph = None if published is None else published.filter(trace_rule=rule)
        known = (coverage or {}).get(rule, Coverage(None, None))
        counts = [*COUNTS, *([AS_PUBLISHED] if graph is not None and graph.height else [])]
        for counted in counts:
            for share in min_shares:
                least = max(1.0, share * n_prompts)
                if counted == AS_PUBLISHED:
                    assert graph is not None
                    found = _published_sizes(graph, least)
                else:
                    column = "n_prompts" if counted == "prompts" else "path_multiplicity"
                    found = _sizes(own_nodes, own_edges, column, least)
                sizes = {
                    "trace_rule": rule,
                    "counted": counted,
                    "min_share": share,
                    "min_count": least,
                    "n_prompts": n_prompts,
                    "n_attention_edges": found.n_attention_edges,
                    "n_communication_edges": found.n_communication_edges,
                    "n_nodes": found.n_nodes,
                    "n_kept_heads": len(found.heads),
                    "median_destination_head_share": known.destination,
                    "median_source_head_share": known.source,
                }
                rows += [
                    sizes | _agreement(found.heads, name, reference, reachable)
                    for name, reference in references.items()
                ] or [sizes]
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA)


def _sizes(nodes: pl.DataFrame, edges: pl.DataFrame, column: str, least: float) -> _Sizes:
    enough = pl.col(column) >= least - 1e-9
    kept = nodes.filter(enough)
    acting = kept.select("layer", "head", "destination_role").unique()
    return _Sizes(
        heads=set(kept.select("layer", "head").rows()),
        n_attention_edges=kept["source_role"].drop_nulls().len(),
        n_communication_edges=edges.filter(enough).height,
        n_nodes=acting.height,
    )


def _published_sizes(graph: pl.DataFrame, least: float) -> _Sizes:
    kept = graph.filter(pl.col("published_count") >= least - 1e-9)
    heads: set[Head] = set()
    for end in ("upstream", "downstream"):
        ends = kept.select(f"{end}_layer", f"{end}_head").drop_nulls()
        heads |= set(ends.rows())
    with_role = kept.select("downstream_layer", "downstream_head", "written_role").unique()
    attention = kept.filter(edge_kind="attention").height
    return _Sizes(heads, attention, kept.height - attention, len(heads) + with_role.height)


def _agreement(
    heads: set[Head], name: str, reference: Heads, reachable: Heads
) -> dict[str, object]:
    possible = reference & reachable
    both = len(heads & possible)
    return {
        "head_list": name,
        "n_listed": len(reference),
        "n_reachable": len(possible),
        "n_shared": both,
        "precision": both / len(heads) if heads else None,
        "recall": both / len(possible) if possible else None,
        # Means over random sets of as many heads: hypergeometric.
        "random_precision": len(possible) / len(reachable),
        "random_recall": len(heads) / len(reachable),
        "p_value": float(hypergeom.sf(both - 1, len(reachable), len(possible), len(heads))),
    }
