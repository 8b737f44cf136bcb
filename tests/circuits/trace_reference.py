"""Singular vector tracing again, slowly: dense float64 SVDs, loops over single pairs, recursion on
every path without memory. Shares no code with the package; the tests compare the two."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mechinterp_assets.model.language_model import LanguageModel

Array = np.ndarray
Pair = tuple[int, int, int, int]  # layer, head, destination, source
Writer = tuple[str, int, int]
EdgeKey = tuple[int, int, int, int, int, int, str]  # upstream head, downstream pair, side


@dataclass
class ReferenceTrace:
    """visits[pair]: number of paths to it. edge_visits: times that the recursion went along an
    edge, on either side. edges[key]: contribution, exact effect, share."""

    visits: Counter[Pair] = field(default_factory=Counter)
    edge_visits: Counter[tuple[int, ...]] = field(default_factory=Counter)
    slices: dict[Pair, list[int]] = field(default_factory=dict)
    edges: dict[EdgeKey, tuple[float, float, float]] = field(default_factory=dict)
    writers: dict[tuple[Pair, str], dict[Writer, float]] = field(default_factory=dict)

    def heads_total(self, key: EdgeKey) -> float:
        """Sum of all heads' contributions to the edge's downstream pair on the edge's side."""
        writers = self.writers[key[2:6], key[6]]
        return sum(value for writer, value in writers.items() if writer[0] == "head")


class Reference:
    """One model and one prompt."""

    def __init__(self, model: LanguageModel, token_ids: list[int]) -> None:
        self.model = model
        with torch.no_grad():
            _, cache = model.processed.run_with_cache(torch.tensor([token_ids]))
        self.cache = {key: value.double().numpy() for key, value in cache.items()}
        self.svds: dict[tuple[int, int, int, int], tuple[Array, Array, Array]] = {}

    def __getitem__(self, key: str) -> Array:
        value = self.cache[key]
        return np.asarray(value[0] if len(value) else value)

    def centre(self, x: Array) -> Array:
        return x - x.mean() if self.model.config.normalization == "LN" else x

    def scale(self, layer: int, position: int) -> float:
        x = self.centre(self[f"blocks.{layer}.hook_resid_pre"][position])
        return float(np.sqrt(np.mean(x**2) + self.model.config.eps))

    def input(self, layer: int, position: int) -> Array:
        x = self.centre(self[f"blocks.{layer}.hook_resid_pre"][position])
        return np.append(x / self.scale(layer, position), 1.0)

    def outputs(self, layer: int, position: int) -> dict[Writer, Array]:
        """What every writer before `layer` wrote at `position`."""
        found: dict[Writer, Array] = {("embedding", -1, -1): self["hook_embed"][position]}
        if "hook_pos_embed" in self.cache:
            found["position", -1, -1] = self["hook_pos_embed"][position]
        weights = self.model.weights
        for up in range(layer):
            z = self[f"blocks.{up}.attn.hook_z"][position].reshape(self.model.config.n_heads, -1)
            for head in range(self.model.config.n_heads):
                found["head", up, head] = z[head] @ weights.W_O[up, head].double().numpy()
            found["bias", up, -1] = weights.b_O[up].double().numpy()
            found["mlp", up, -1] = self[f"blocks.{up}.hook_mlp_out"][position]
        return {writer: self.centre(o) for writer, o in found.items()}

    def rotation(self, position: int) -> Array:
        """R_p acting on columns: dimension a is paired with a + d_head / 2."""
        d_head = self.model.config.d_head
        if self.model.config.positional != "rotary":
            return np.eye(d_head)
        half = d_head // 2
        result = np.zeros((d_head, d_head))
        for a in range(half):
            angle = position * 10000.0 ** (-2 * a / d_head)
            result[a, a] = result[a + half, a + half] = np.cos(angle)
            result[a, a + half], result[a + half, a] = -np.sin(angle), np.sin(angle)
        return result

    def svd(self, layer: int, head: int, i: int, j: int) -> tuple[Array, Array, Array]:
        key = (
            (layer, head, i, j) if self.model.config.positional == "rotary" else (layer, head, 0, 0)
        )
        if key not in self.svds:
            w = self.model.weights

            def stacked(W: Any, b: Any) -> Array:
                return np.vstack([W[layer, head].double().numpy(), b[layer, head].double().numpy()])

            omega = (
                stacked(w.W_Q, w.b_Q)
                @ self.rotation(i).T
                @ self.rotation(j)
                @ stacked(w.W_K, w.b_K).T
            )
            U, S, Vt = np.linalg.svd(omega)
            rank = min(self.model.config.d_head, len(omega))
            self.svds[key] = U[:, :rank], S[:rank], Vt[:rank].T
        return self.svds[key]

    def fires(self, layer: int, head: int, i: int, j: int) -> bool:
        attention = self[f"blocks.{layer}.attn.hook_pattern"][head, i, j]
        score = self[f"blocks.{layer}.attn.hook_attn_scores"][head, i, j]
        return bool(attention >= 0.5 and score >= 0 and j >= 1)

    def trace(
        self, roots: list[tuple[int, int]], end: int, io: int, *, published: bool = False
    ) -> ReferenceTrace:
        """published: append a 1, not a 0, to every head's output before it is normalised."""
        result = ReferenceTrace()
        self.appended = 1.0 if published else 0.0
        for layer, head in roots:
            if self.fires(layer, head, end, io):
                self._follow(result, (layer, head, end, io))
        return result

    def _follow(self, result: ReferenceTrace, pair: Pair) -> None:
        layer, head, i, j = pair
        result.visits[pair] += 1
        U, S, V = self.svd(layer, head, i, j)
        x_i, x_j = self.input(layer, i), self.input(layer, j)
        terms = [float(S[k] * (U[:, k] @ x_i) * (V[:, k] @ x_j)) for k in range(len(S))]
        chosen = sorted(range(len(terms)), key=lambda k: terms[k])
        dropped = 0.0
        while chosen and dropped + terms[chosen[0]] <= 1e-12 * sum(map(abs, terms)):
            dropped += terms[chosen.pop(0)]
        result.slices[pair] = sorted(chosen)

        for side, position in (("destination", i), ("source", j)):
            s = self.scale(layer, position)
            contributions: dict[Writer, float] = {}
            exact: dict[Writer, float] = {}
            for writer, output in self.outputs(layer, position).items():
                o = np.append(output, self.appended if writer[0] == "head" else 0.0) / s
                near, far, there = (U, V, x_j) if side == "destination" else (V, U, x_i)
                contributions[writer] = sum(
                    np.sign(U[:, k] @ x_i) * np.sqrt(S[k]) * (near[:, k] @ o) for k in chosen
                )
                exact[writer] = sum(S[k] * (near[:, k] @ o) * (far[:, k] @ there) for k in chosen)
            result.writers[pair, side] = contributions
            heads = {writer: c for writer, c in contributions.items() if writer[0] == "head"}
            total, reached = sum(heads.values()), 0.0
            for rank, writer in enumerate(sorted(heads, key=lambda w: -heads[w])):
                if rank > 0 and (reached > 0.7 * total or not _reachable(heads, total)):
                    break
                reached += heads[writer]
                _, up_layer, up_head = writer
                key = (up_layer, up_head, layer, head, i, j, side)
                result.edge_visits[key[:-1]] += 1
                result.edges[key] = (heads[writer], exact[writer], heads[writer] / total)
                for source in range(1, position + 1):
                    if self.fires(up_layer, up_head, position, source):
                        self._follow(result, (up_layer, up_head, position, source))


def _reachable(heads: dict[Writer, float], total: float) -> bool:
    """Whether some prefix, largest first, exceeds 70% of the total."""
    reached = 0.0
    for value in sorted(heads.values(), reverse=True):
        reached += value
        if reached > 0.7 * total:
            return True
    return False
