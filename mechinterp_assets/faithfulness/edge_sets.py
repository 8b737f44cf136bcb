"""Runs in which only a circuit's edges are clean: faithfulness of an edge set.

Belongs here: the run of an edge set, its faithfulness, curves over circuit size. Does not belong
here: how edges are ranked (rankings.py) and areas under curves (curve_areas.py).

Every receiver v reads x_v^corrupt + sum over the circuit's edges u -> v of (u - u^corrupt), u being
the node's output in this very run: edges outside the circuit carry what their source writes in the
counterfactual run (Hanna et al. 2024, arXiv 2403.17806; MIB, Mueller et al. 2025, arXiv
2504.13151). With all edges that is the clean run, with none the counterfactual one.

    f(C) = (m(C) - m(empty)) / (m(full) - m(empty))

m is the mean logit difference over prompts: means are normalised, not single prompts.

Cost: before the first token in which a prompt and its counterfactual differ both runs are the same
whatever the circuit, so every run computes the tokens from there to END alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.edge_graph import HEAD_INPUTS, FaithfulnessError, Mask
from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, logit_difference
from mechinterp_assets.faithfulness.rankings import Ranking, top_edges
from mechinterp_assets.faithfulness.split_model import SplitModel, Tail
from mechinterp_assets.model.precision import float64

Progress = Callable[[int, int], None]

# Circuit sizes as shares of all edges (MIB).
FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CURVE_SCHEMA: dict[str, Any] = {
    "ranking": pl.String,
    "ranked_by": pl.String,
    "seed": pl.Int64,
    "edge_fraction": pl.Float64,
    "n_edges": pl.Int64,
    "n_ranked": pl.Int64,
    "n_connected": pl.Int64,
    "m_circuit": pl.Float64,
    "m_empty": pl.Float64,
    "m_full": pl.Float64,
    "faithfulness": pl.Float64,
    "n_prompts": pl.Int64,
}


@torch.no_grad()
def edge_set_logit_differences(
    model: SplitModel,
    pairs: PromptBatch,
    masks: Sequence[Mask],
    *,
    batch_rows: int = 32,
    progress: Progress | None = None,
) -> np.ndarray:
    """Logit difference of every prompt when only a mask's edges are clean [mask, prompt] float64.

    masks: [receiver, node] bool, within the graph. Edges on no path from embedding to logits are
    left out before the run, which changes nothing; masks that come to the same run once.
    Raises FaithfulnessError for edges that do not exist.
    """
    graph = model.graph
    for number, mask in enumerate(masks):
        if mask.shape != graph.exists.shape or (mask & ~graph.exists).any():
            raise FaithfulnessError(f"mask {number} has edges that the model's graph does not have")
    pruned = [graph.connected(mask) for mask in masks]
    place: dict[bytes, list[int]] = {}
    for number, mask in enumerate(pruned):
        place.setdefault(np.packbits(mask).tobytes(), []).append(number)
    values = np.empty((len(masks), len(pairs)))
    first = 0
    for batch in pairs.split(model.prompts_that_fit(pairs.clean.shape[1], batch_rows)):
        corrupt = _Corrupt.of(model, batch)
        for done, numbers in enumerate(place.values()):
            found = _run(model, batch, corrupt, pruned[numbers[0]])
            values[numbers, first : first + len(batch)] = float64(found).cpu().numpy()
            if progress is not None:
                progress(first * len(place) + done * len(batch), len(pairs) * len(place))
        first += len(batch)
    return values


def circuit_curves(
    model: SplitModel,
    pairs: PromptBatch,
    rankings: Sequence[Ranking],
    *,
    fractions: Sequence[float] = FRACTIONS,
    batch_rows: int = 32,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Faithfulness of the first edges of every ranking: CURVE_SCHEMA, a row per ranking and size.

    The circuit of size k has floor(k * number of edges) edges, counted before those on no path are
    left out (`n_connected` is what remains).
    Raises FaithfulnessError for fractions outside (0, 1] and where clean and counterfactual runs
    have the same mean logit difference.
    """
    if not fractions or any(not 0 < k <= 1 for k in fractions):
        raise FaithfulnessError(f"circuit sizes {list(fractions)} are not shares in (0, 1]")
    graph = model.graph
    masks = [graph.mask(np.arange(0)), graph.exists]
    for ranking in rankings:
        if len(ranking.scores) != graph.n_edges:
            raise FaithfulnessError(
                f"ranking {ranking.name} has {len(ranking.scores)} scores; the graph has "
                f"{graph.n_edges} edges"
            )
        masks += [graph.mask(top_edges(ranking, k)) for k in fractions]
    values = edge_set_logit_differences(
        model, pairs, masks, batch_rows=batch_rows, progress=progress
    ).mean(1)
    empty, full = float(values[0]), float(values[1])
    check_metric_moves(empty, full)
    rows = []
    for number, ranking in enumerate(rankings):
        for step, k in enumerate(fractions):
            at = 2 + number * len(fractions) + step
            rows.append(
                {
                    "ranking": ranking.name,
                    "ranked_by": ranking.ranked_by,
                    "seed": ranking.seed,
                    "edge_fraction": float(k),
                    "n_edges": int(masks[at].sum()),
                    "n_ranked": int(np.isfinite(ranking.scores).sum()),
                    "n_connected": int(graph.connected(masks[at]).sum()),
                    "m_circuit": float(values[at]),
                    "m_empty": empty,
                    "m_full": full,
                    "faithfulness": float((values[at] - empty) / (full - empty)),
                    "n_prompts": len(pairs),
                }
            )
    return pl.DataFrame(rows, schema=CURVE_SCHEMA)


def check_metric_moves(empty: float, full: float) -> None:
    """Raise FaithfulnessError where f would divide by (nearly) nothing."""
    if not abs(full - empty) > 1e-6 * max(abs(full), abs(empty), 1.0):
        raise FaithfulnessError(
            f"the mean logit difference is {full:.4g} on the prompts and {empty:.4g} on their "
            "counterfactuals: faithfulness is not defined; choose another counterfactual"
        )


# ---- private -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Corrupt:
    """The counterfactual run of pairs where a circuit can change it: from the first token that
    differs to END.

    pre, mid [layer][b, w, d_model], q [layer][b, w, head, d_head] and nodes [node, b, w, d_model]
    are of the tail's positions. embedding [b, w, d_model]: clean less counterfactual. final [b,
    d_model]: the residual stream at END.
    """

    tail: Tail
    pre: list[Tensor]
    mid: list[Tensor]
    q: list[Tensor]
    nodes: Tensor
    embedding: Tensor
    final: Tensor

    @classmethod
    def of(cls, model: SplitModel, batch: PromptBatch) -> "_Corrupt":
        run = model.run(batch.corrupt, nodes=True)
        tail = Tail.of(run, batch.first_difference, batch.end)
        assert run.nodes is not None
        nodes = run.nodes[:, tail.rows, tail.at]
        return cls(
            tail,
            pre=[tail.take(of_layer) for of_layer in run.pre],
            mid=[tail.take(of_layer) for of_layer in run.mid],
            q=[tail.take(of_layer) for of_layer in run.q],
            nodes=nodes,
            embedding=tail.take(model.embed(batch.clean)) - nodes[0],
            final=tail.take(run.final)[:, -1],
        )


def _run(model: SplitModel, batch: PromptBatch, corrupt: _Corrupt, mask: Mask) -> Tensor:
    """Logit difference [b] with the edges of a pruned mask clean.

    Only heads and MLPs that an edge leads into are computed; the others equal the corrupt run.
    """
    graph, tail = model.graph, corrupt.tail
    change = torch.zeros_like(corrupt.nodes)
    change[0] = corrupt.embedding
    edges = torch.from_numpy(mask).to(model.device, model.dtype)

    def inputs(receivers: list[int], base: Tensor) -> Tensor:
        """What receivers of the same sources read [receiver, b, w, d_model]."""
        used = np.flatnonzero(mask[receivers].any(0))
        # Gathering copies: worth it only where few of the sources are used.
        dense = 2 * len(used) > used[-1]
        chosen = slice(0, int(used[-1]) + 1) if dense else used.tolist()
        mixed: Tensor = edges[receivers][:, chosen] @ change[chosen].flatten(1)
        return base + mixed.view(len(receivers), *base.shape)

    for layer in range(model.shape.n_layers):
        active = np.zeros(model.shape.n_heads, dtype=bool)
        streams = {"q": corrupt.q[layer], "k": tail.k[layer], "v": tail.v[layer]}
        readers = {
            kind: np.flatnonzero(mask[graph.head_inputs(layer, kind)].any(1)).tolist()
            for kind in HEAD_INPUTS
        }
        receivers = [
            graph.head_inputs(layer, kind).start + place
            for kind in HEAD_INPUTS
            for place in readers[kind]
        ]
        if receivers:
            y = model.normalise(inputs(receivers, corrupt.pre[layer]))
            parts = torch.split(y, [len(readers[kind]) for kind in HEAD_INPUTS])
            for kind, part in zip(HEAD_INPUTS, parts, strict=True):
                own = readers[kind]
                if own:
                    found = model.project(kind, layer, part, heads=own, positions=tail.at)
                    if kind == "q":
                        streams[kind] = streams[kind].clone()
                        streams[kind][:, :, own] = found
                    else:
                        places = torch.tensor(own, device=model.device)
                        streams[kind] = tail.put(streams[kind], found, places)
        for receiver in receivers:
            active[[node - graph.nodes_before(layer) for node in graph.feeds(receiver)]] = True
        heads = np.flatnonzero(active).tolist()
        if heads:
            groups = [head // (model.shape.n_heads // model.shape.n_kv_heads) for head in heads]
            z = model.attend(
                layer,
                streams["q"][:, :, heads],
                streams["k"][:, :, groups],
                streams["v"][:, :, groups],
                tail.at,
            )
            nodes = [graph.head_node(layer, head) for head in heads]
            change[nodes] = model.head_outputs(layer, z, heads) - corrupt.nodes[nodes]
        receiver, node = graph.mlp_input(layer), graph.mlp_node(layer)
        if mask[receiver].any():
            x = inputs([receiver], corrupt.mid[layer])[0]
            change[node] = model.mlp(layer, model.normalise(x)) - corrupt.nodes[node]
    used = np.flatnonzero(mask[graph.logits])
    return logit_difference(model, batch, corrupt.final + change[used, :, -1].sum(0))
