"""Singular vector tracing again, slowly: dense float64 SVDs, loops over single pairs, recursion on
every path without memory. Shares no code with the package; the tests compare the two.

From the words of Franco & Crovella 2024 (sections 3 to 5). The rule `relative` from those of ACC:
the score less the mean score of the other sources, each head's part told apart by the token at
which it wrote. Rotary models: u_k of the matrix at offset 0, and what each offset's matrix makes of
it (ACC++).
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mechinterp_assets.model.language_model import LanguageModel

Array = np.ndarray
Pair = tuple[int, int, int, int]  # layer, head, destination, source
Writer = tuple[str, int, int]
EdgeKey = tuple[int, int, int, int, int, int, str, int]  # upstream head, pair, side, written at
Item = tuple[Writer, int]  # a writer and the position that it wrote at


@dataclass
class ReferenceTrace:
    """visits[pair]: number of paths to it. edge_visits: times that the recursion went along an
    edge, on either side. events: every such step, in order: upstream head, downstream head and the
    position written at. edges[key]: contribution, exact effect, share. head_share[pair, side]."""

    visits: Counter[Pair] = field(default_factory=Counter)
    edge_visits: Counter[tuple[int, ...]] = field(default_factory=Counter)
    events: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    slices: dict[Pair, list[int]] = field(default_factory=dict)
    edges: dict[EdgeKey, tuple[float, float, float]] = field(default_factory=dict)
    items: dict[tuple[Pair, str], dict[Item, float]] = field(default_factory=dict)
    head_share: dict[tuple[Pair, str], float] = field(default_factory=dict)

    def writers(self, pair: Pair, side: str) -> dict[Writer, float]:
        """Contributions summed over the positions written at."""
        found: dict[Writer, float] = {}
        for (writer, _), value in self.items[pair, side].items():
            found[writer] = found.get(writer, 0.0) + value
        return found

    def heads_total(self, pair: Pair, side: str) -> float:
        """Sum of all heads' contributions on one side of a pair."""
        return sum(value for w, value in self.writers(pair, side).items() if w[0] == "head")


class Reference:
    """One model and one prompt."""

    def __init__(self, model: LanguageModel, token_ids: list[int]) -> None:
        self.model = model
        with torch.no_grad():
            _, cache = model.processed.run_with_cache(torch.tensor([token_ids]))
        self.cache = {key: value.double().numpy() for key, value in cache.items()}
        self.svds: dict[tuple[int, int, int], tuple[Array, Array, Array]] = {}
        self.written: dict[tuple[int, int], dict[Writer, Array]] = {}

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
        if (layer, position) not in self.written:
            self.written[layer, position] = self._outputs(layer, position)
        return self.written[layer, position]

    def _outputs(self, layer: int, position: int) -> dict[Writer, Array]:
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

    def omega(self, layer: int, head: int, offset: int) -> Array:
        w = self.model.weights

        def stacked(W: Any, b: Any) -> Array:
            return np.vstack([W[layer, head].double().numpy(), b[layer, head].double().numpy()])

        turn = self.rotation(offset).T
        return np.asarray(stacked(w.W_Q, w.b_Q) @ turn @ stacked(w.W_K, w.b_K).T)

    def svd(self, layer: int, head: int, i: int, j: int) -> tuple[Array, Array, Array]:
        """u_k, sigma_k and v_k of the pair's offset, which matters for rotary models alone."""
        offset = i - j if self.model.config.positional == "rotary" else 0
        key = (layer, head, offset)
        if key not in self.svds:
            U, S, Vt = np.linalg.svd(self.omega(layer, head, 0))
            rank = min(self.model.config.d_head, len(U))
            U, S, V = U[:, :rank], S[:rank], Vt[:rank].T
            if offset:
                turned = self.omega(layer, head, offset).T @ U
                S = np.array([np.linalg.norm(column) for column in turned.T])
                V = turned / S
            self.svds[key] = U, S, V
        return self.svds[key]

    def fires(self, layer: int, head: int, i: int, j: int) -> bool:
        attention = self[f"blocks.{layer}.attn.hook_pattern"][head, i, j]
        score = self[f"blocks.{layer}.attn.hook_attn_scores"][head, i, j]
        return bool(attention >= 0.5 and (score >= 0 or self.relative) and j >= 1)

    def trace(
        self,
        roots: list[tuple[int, int]],
        end: int,
        io: int,
        *,
        published: bool = False,
        relative: bool = False,
    ) -> ReferenceTrace:
        """published: append a 1, not a 0, to every head's output before it is normalised."""
        result = ReferenceTrace()
        self.relative = relative
        self.appended = 1.0 if published else 0.0
        for layer, head in roots:
            if self.fires(layer, head, end, io):
                self._follow(result, (layer, head, end, io))
        return result

    def _follow(self, result: ReferenceTrace, pair: Pair) -> None:
        layer, head, i, j = pair
        result.visits[pair] += 1
        U, S, _ = self.svd(layer, head, i, j)
        x_i, ranks = self.input(layer, i), range(len(S))
        others = [p for p in range(i + 1) if p != j] if self.relative else []
        # Sources whose scores count, and how much: score(j) - mean of score(p).
        weights = {j: 1.0, **{p: -1 / len(others) for p in others}}
        vectors = {p: self.svd(layer, head, i, p)[1:] for p in weights}
        keys = {p: vectors[p][1].T @ self.input(layer, p) for p in weights}
        far = [sum(w * vectors[p][0][k] * keys[p][k] for p, w in weights.items()) for k in ranks]
        terms = [float((U[:, k] @ x_i) * far[k]) for k in ranks]
        result.slices[pair] = chosen = _smallest_set(terms)
        sign = [np.sign(U[:, k] @ x_i) for k in ranks]
        for side in ("destination", "source"):
            contributions: dict[Item, float] = {}
            exact: dict[Item, float] = {}
            # At the destination the appended 1 of the input counts, not at a writer's output.
            fixed = 0.0
            for p, weight in {i: 1.0}.items() if side == "destination" else weights.items():
                s = self.scale(layer, p)
                sigma_p, V_p = (S, U) if side == "destination" else vectors[p]
                root = sigma_p / np.sqrt(S)  # sqrt(sigma) but for another offset's sigma
                for k in chosen:
                    fixed += weight * sign[k] * root[k] * V_p[-1, k]
                for writer, output in self.outputs(layer, p).items():
                    o = np.append(output, self.appended if writer[0] == "head" else 0.0) / s
                    item = (writer, p)
                    along = V_p[:, chosen].T @ o
                    contributions[item] = weight * sum(
                        sign[k] * root[k] * value for k, value in zip(chosen, along, strict=True)
                    )
                    other = far if side == "destination" else sigma_p * (U.T @ x_i)
                    exact[item] = weight * sum(
                        other[k] * value for k, value in zip(chosen, along, strict=True)
                    )
            result.items[pair, side] = contributions
            heads = {item: c for item, c in contributions.items() if item[0][0] == "head"}
            size = sum(map(abs, heads.values()))
            whole = sum(map(abs, contributions.values())) + abs(fixed)
            result.head_share[pair, side] = size / whole if whole else 0.0
            total = sum(heads.values())
            for item in _kept_items(heads, published=self.appended == 1.0):
                (_, up_layer, up_head), position = item
                key = (up_layer, up_head, layer, head, i, j, side, position)
                result.edge_visits[key[:6]] += 1
                result.events.append((up_layer, up_head, layer, head, position))
                result.edges[key] = (heads[item], exact[item], heads[item] / total)
                for source in range(1, position + 1):
                    if self.fires(up_layer, up_head, position, source):
                        self._follow(result, (up_layer, up_head, position, source))


def _smallest_set(terms: list[float]) -> list[int]:
    """The smallest set, largest share of the sum first, that reaches the sum."""
    sign = -1 if sum(terms) < 0 else 1
    shares = [sign * term for term in terms]
    left = sorted(range(len(terms)), key=lambda k: shares[k])
    dropped = 0.0
    while left and dropped + shares[left[0]] <= 1e-12 * sum(map(abs, terms)):
        dropped += shares[left.pop(0)]
    return sorted(left)


def _kept_items(heads: dict[Item, float], *, published: bool) -> list[Item]:
    """The smallest set that exceeds 70% of the sum, largest first. A sum that is not positive: none
    (published: the largest)."""
    total, reached, kept = sum(heads.values()), 0.0, []
    ordered = sorted(heads, key=lambda item: -heads[item])
    if total <= 0:
        return ordered[:1] if published else []
    for item in ordered:
        if reached > 0.7 * total:
            break
        reached += heads[item]
        kept.append(item)
    return kept
