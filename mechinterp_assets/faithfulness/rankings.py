"""Rankings of edges: who goes into a circuit first.

Belongs here: a score per edge and its order; scores of nodes lifted to edges; traced edges as a
ranking; random ones. Does not belong here: attribution and patching, which make scores, and runs.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from mechinterp_assets.faithfulness.edge_graph import EdgeGraph, FaithfulnessError

By = Literal["signed", "absolute"]


@dataclass(frozen=True)
class Ranking:
    """Scores [edge] in descending order of the score or of its absolute value (`ranked_by`).

    NaN: not ranked; such edges come last. Ties and unranked edges stand in an order drawn from
    `seed` and the name, so that they favour no layer.
    """

    name: str
    scores: np.ndarray
    ranked_by: By = "signed"
    seed: int = 0

    @property
    def order(self) -> np.ndarray:
        """Numbers of all edges, first the highest."""
        key = self.scores if self.ranked_by == "signed" else np.abs(self.scores)
        key = np.where(np.isnan(key), -np.inf, key)
        shuffled = np.random.default_rng([self.seed, zlib.crc32(self.name.encode())]).permutation(
            len(key)
        )
        return shuffled[np.argsort(-key[shuffled], kind="stable")]


def top_edges(ranking: Ranking, fraction: float) -> np.ndarray:
    """Numbers of the first floor(fraction * edges) edges."""
    # 1e-9: 0.29 * 100 is 28.999... in binary.
    return ranking.order[: int(fraction * len(ranking.scores) + 1e-9)]


def random_ranking(graph: EdgeGraph, seed: int) -> Ranking:
    """All edges in random order: the control of every other ranking."""
    scores = np.random.default_rng([seed, graph.n_edges]).random(graph.n_edges)
    return Ranking("random", scores, "signed", seed)


def edges_of_heads(graph: EdgeGraph, scores: np.ndarray) -> np.ndarray:
    """Scores of heads [layer, head] as scores of edges: an edge is as good as its weaker end.

    Embedding, MLPs and logits are in every circuit of heads (their score is the best head's), so
    that adding heads in order adds all edges among them. A shared key or value input is as good as
    the best head that reads it.
    """
    if scores.shape != (graph.n_layers, graph.n_heads):
        raise FaithfulnessError(
            f"head scores have shape {scores.shape}, expected {(graph.n_layers, graph.n_heads)}"
        )
    best = float(scores.max())
    of_node = np.full(graph.n_nodes, best)
    for layer in range(graph.n_layers):
        first = graph.nodes_before(layer)
        of_node[first : first + graph.n_heads] = scores[layer]
    of_receiver = np.full(graph.n_receivers, best)
    for receiver in range(graph.n_receivers - 1):
        of_receiver[receiver] = of_node[graph.feeds(receiver)].max()
    receivers, nodes = graph.edges.T
    return np.asarray(np.minimum(of_node[nodes], of_receiver[receivers]))


def edges_of_trace(graph: EdgeGraph, traced: pl.DataFrame, *, weight: str) -> np.ndarray:
    """Traced edges as scores of edges [edge]; NaN where nothing was traced.

    traced: rows of trace_edges or trace_graph. What was written at the destination of the
    downstream head's pair is read by its query, at the source by its key. `weight` is summed over
    rows of one edge. Rows whose writer is no node (bias) are left out, position counts as the
    embedding; without a column upstream_kind all writers are heads.
    """
    scores = np.full(graph.n_edges, np.nan)
    for row in traced.iter_rows(named=True):
        node = _trace_node(graph, row)
        if node is None:
            continue
        head = int(row["downstream_head"])
        layer = int(row["downstream_layer"])
        if row["side"] == "destination":
            receiver = graph.head_inputs(layer, "q").start + head
        else:
            group = head // (graph.n_heads // graph.n_kv_heads)
            receiver = graph.head_inputs(layer, "k").start + group
        edge = graph.edge_number(receiver, node)
        scores[edge] = np.nan_to_num(scores[edge]) + float(row[weight])
    return scores


def heads_of_trace(graph: EdgeGraph, traced: pl.DataFrame, *, weight: str) -> np.ndarray:
    """Score of every head [layer, head]: its largest `weight` as either end of a traced edge."""
    scores = np.zeros((graph.n_layers, graph.n_heads))
    for end in ("upstream", "downstream"):
        ends = traced.filter(pl.col(f"{end}_head").is_not_null() & (pl.col(f"{end}_head") >= 0))
        for layer, head, value in ends.select(f"{end}_layer", f"{end}_head", weight).iter_rows():
            scores[layer, head] = max(scores[layer, head], float(value))
    return scores


def head_scores(graph: EdgeGraph, counted: pl.DataFrame) -> np.ndarray:
    """Score of every head [layer, head]: n_prompts, ties told apart by n_pairs (a fraction of 1).

    counted: layer, head, n_prompts, n_pairs of the heads that a trace has.
    """
    scores = np.zeros((graph.n_layers, graph.n_heads))
    most = 1 + max(counted["n_pairs"].to_list(), default=0)
    for layer, head, prompts, pairs in counted.select(
        "layer", "head", "n_prompts", "n_pairs"
    ).iter_rows():
        scores[layer, head] = prompts + pairs / most
    return scores


def traced_circuit(graph: EdgeGraph, traced: pl.DataFrame, *, weight: str) -> np.ndarray:
    """Traced edges with all that a trace does not rank: a whole circuit [edge]; NaN: left out.

    A trace finds what writes into queries and keys; it says nothing of values, MLPs and logits,
    without which no circuit is connected. So edges among traced heads, embedding, MLPs and logits
    score as in `edges_of_heads`, except those from a head into a query or key: these are traced or
    left out.
    """
    scores = edges_of_heads(graph, heads_of_trace(graph, traced, weight=weight))
    own = edges_of_trace(graph, traced, weight=weight)
    for edge, (receiver, node) in enumerate(graph.edges.tolist()):
        reads = graph.receivers[receiver].kind in {"q", "k"}
        if reads and graph.nodes[node].kind == "head":
            scores[edge] = own[edge]
    return scores


def best_heads(scores: np.ndarray, count: int) -> list[tuple[int, int]]:
    """The `count` heads [layer, head] with the highest positive scores, best first."""
    order = np.argsort(-scores, axis=None, kind="stable")[:count]
    places = [(int(i) // scores.shape[1], int(i) % scores.shape[1]) for i in order]
    return [place for place in places if scores[place] > 0]


def with_signs(name: str, scores: np.ndarray, seed: int) -> list[Ranking]:
    """The ranking by signed score (for CPR) and by absolute score (for CMD)."""
    return [Ranking(name, scores, "signed", seed), Ranking(name, scores, "absolute", seed)]


def agreement(scores: Mapping[str, np.ndarray], exact: np.ndarray, *, top: int) -> pl.DataFrame:
    """How well scores [edge] of each name agree with exact effects [edge]; NULL where undefined.

    pearson, spearman (ranks averaged over ties); sign_agreement: share of the edges whose exact
    effect is not 0 with the score's sign right; top_overlap: share of the `top` edges by |exact|
    that are among the `top` by |score|.
    """
    rows = []
    moved = exact != 0
    top = min(top, len(exact))
    for name, values in scores.items():
        sign = np.sign(values[moved]) == np.sign(exact[moved])
        largest = [
            set(np.argsort(-np.abs(x), kind="stable")[:top].tolist()) for x in (values, exact)
        ]
        rows.append(
            {
                "attribution": name,
                "pearson": _correlation(values, exact),
                "spearman": _correlation(_ranks(values), _ranks(exact)),
                "sign_agreement": float(sign.mean()) if moved.any() else None,
                "top_overlap": len(largest[0] & largest[1]) / top if top else None,
                "n_top_edges": top,
            }
        )
    return pl.DataFrame(
        rows,
        schema={
            "attribution": pl.String,
            "pearson": pl.Float64,
            "spearman": pl.Float64,
            "sign_agreement": pl.Float64,
            "top_overlap": pl.Float64,
            "n_top_edges": pl.Int64,
        },
    )


# ---- private -------------------------------------------------------------------------------------


def _trace_node(graph: EdgeGraph, row: Mapping[str, object]) -> int | None:
    kind = row.get("upstream_kind", "head")
    if kind in {"embedding", "position"}:
        return 0
    layer, head = row["upstream_layer"], row["upstream_head"]
    if kind == "mlp":
        return graph.mlp_node(int(str(layer)))
    if kind == "head":
        return graph.head_node(int(str(layer)), int(str(head)))
    return None


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties averaged."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts + 1) / 2)[inverse])


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
