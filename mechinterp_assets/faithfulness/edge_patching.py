"""Exact patching of single edges: the gold standard of edge attribution.

Belongs here: the effect on the logit difference of corrupting one edge and nothing else, for all
edges or some. Does not belong here: sets of edges (edge_sets.py), approximations
(edge_attribution.py).

Edge u -> v is corrupted: receiver v alone reads x_v + (u^corrupt - u^clean) in place of its clean
input x_v; everything behind v is computed anew, everything else is clean. Effect = m(clean) -
m(patched), m the logit difference: positive when the edge raises it.

Cost: what is computed per edge starts at its receiver, and at the first token in which prompt and
counterfactual differ. One head's output is computed for an edge into a head, then MLP and later
layers; edges into one receiver run as one batch; of the last layer only END. An edge into the
logits costs a norm.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.faithfulness.prompt_pairs import PromptBatch, logit_difference
from mechinterp_assets.faithfulness.split_model import Activations, SplitModel, Tail
from mechinterp_assets.model.precision import float64

Progress = Callable[[int, int], None]


@torch.no_grad()
def exact_edge_effects(
    model: SplitModel,
    pairs: PromptBatch,
    edges: np.ndarray | None = None,
    *,
    batch_rows: int = 512,
    progress: Progress | None = None,
) -> np.ndarray:
    """m(clean) - m(edge corrupted) of every prompt [prompt, edge] float64; edges [n] default all.

    batch_rows: rows (edges x prompts) that run together, fewer where they do not fit.
    """
    chosen = np.arange(model.graph.n_edges) if edges is None else np.asarray(edges, dtype=np.int64)
    places = model.graph.edges[chosen]
    effects = np.empty((len(pairs), len(chosen)))
    done = 0
    length = pairs.clean.shape[1]
    batch_rows = model.rows_that_fit(length, batch_rows)
    together = model.prompts_that_fit(length, max(1, batch_rows // 8))
    for number, batch in enumerate(pairs.split(together)):
        first = number * together
        rows = slice(first, first + len(batch))
        clean, corrupt = model.run(batch.clean, nodes=True), model.run(batch.corrupt, nodes=True)
        assert clean.nodes is not None
        assert corrupt.nodes is not None
        tail = Tail.of(clean, batch.first_difference, batch.end)
        change = (corrupt.nodes - clean.nodes)[:, tail.rows, tail.at]
        m_clean = logit_difference(model, batch, tail.take(clean.final)[:, -1])
        size = max(1, batch_rows // len(batch))
        for receiver in np.unique(places[:, 0]).tolist():
            into = np.flatnonzero(places[:, 0] == receiver)
            for start in range(0, len(into), size):
                part = into[start : start + size]
                nodes = torch.from_numpy(places[part, 1]).to(model.device)
                patched = _patched(model, batch, clean, tail, receiver, change[nodes])
                effects[rows, part] = float64(m_clean - patched).cpu().numpy().T
                done += len(part) * len(batch)
                if progress is not None:
                    progress(done, len(chosen) * len(pairs))
    return effects


def sampled_edges(n_edges: int, count: int, seed: int) -> np.ndarray:
    """Numbers of `count` edges drawn without replacement, sorted; all where there are no more."""
    if count >= n_edges:
        return np.arange(n_edges)
    return np.sort(np.random.default_rng(seed).choice(n_edges, size=count, replace=False))


# ---- private -------------------------------------------------------------------------------------


def _patched(
    model: SplitModel,
    batch: PromptBatch,
    clean: Activations,
    tail: Tail,
    receiver: int,
    change: Tensor,
) -> Tensor:
    """Logit difference [edge, b] with each row of change [edge, b, w, d_model] at one receiver."""
    reader = model.graph.receivers[receiver]
    n_edges, n_prompts = change.shape[:2]
    if reader.layer is None:
        at_end = tail.take(clean.final)[:, -1] + change[:, :, -1]
        return logit_difference(model, batch, at_end)
    layer = reader.layer
    rest = tail.repeated(n_edges)
    if reader.kind == "mlp":
        mid, change = tail.take(clean.mid[layer]).repeat(n_edges, 1, 1), change.flatten(0, 1)
        if layer == model.shape.n_layers - 1:
            mid, change = mid[:, -1:], change[:, -1:]
        x = mid + model.mlp(layer, model.normalise(mid + change))
        at_end = model.finish_from(layer + 1, x, rest)
    else:
        mid = _mid_after_head(model, clean, tail, rest, receiver, change)
        at_end = model.finish(layer, mid, rest)
    return logit_difference(model, batch, at_end.view(n_edges, n_prompts, -1))


def _mid_after_head(
    model: SplitModel, clean: Activations, tail: Tail, rest: Tail, receiver: int, change: Tensor
) -> Tensor:
    """Residual stream before the MLP [edge * b, w, d_model], of END alone [.., 1, ..] in the last
    layer, when one query, key or value input changes. rest: the tail, for every edge."""
    reader = model.graph.receivers[receiver]
    kind, layer, own = reader.kind, reader.layer, reader.head
    assert layer is not None
    assert own is not None
    assert kind in {"q", "k", "v"}
    n_edges = len(change)
    heads = [own] if kind == "q" else list(model.graph.group_heads(own))
    group = own if kind != "q" else own // (model.shape.n_heads // model.shape.n_kv_heads)
    written = slice(-1, None) if layer == model.shape.n_layers - 1 else slice(None)

    def stacked(value: Tensor) -> Tensor:
        value = tail.take(value)[:, written]
        return value.repeat(n_edges, *[1] * (value.dim() - 1))

    changed = tail.take(clean.pre[layer]).repeat(n_edges, 1, 1) + change.flatten(0, 1)
    k, v = (of_layer[layer][:, :, [group]] for of_layer in (rest.k, rest.v))
    at = rest.at[:, written]
    if kind == "q":
        y = model.normalise(changed[:, written])
        q = model.project("q", layer, y[None], heads=heads, positions=at)
    else:
        q = stacked(clean.q[layer][:, :, heads])
        y = model.normalise(changed)
        found = model.project(kind, layer, y[None], heads=[group], positions=rest.at)
        k, v = (rest.put(k, found), v) if kind == "k" else (k, rest.put(v, found))
    difference = model.attend(layer, q, k, v, at) - stacked(clean.z[layer][:, :, heads])
    W_O = model.W_O[layer][heads].flatten(0, 1)
    return stacked(clean.mid[layer]) + difference.flatten(-2) @ W_O
