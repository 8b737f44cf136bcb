"""ACC and ACC++ again, slowly, from their description: one row of scores of one head at a time, by
dense matrices d_model x d_model and loops over single terms, float64, processed weights. Shares no
code with the package, which folds raw weights and never makes these matrices."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mechinterp_assets.model.language_model import LanguageModel

Array = np.ndarray
# Writer (kind, layer, head), position written at, token read (-1: none).
Item = tuple[str, int, int, int, int]
Term = tuple[Item, int]  # and singular vector


@dataclass
class PlusChoice:
    """ACC++ on one side: attention lost by item, what is left, and the order of removal."""

    lost: dict[Item, float] = field(default_factory=dict)
    left: float = 0.0
    removed: list[Term] = field(default_factory=list)


class AccReference:
    """One model and one prompt."""

    def __init__(self, model: LanguageModel, token_ids: list[int]) -> None:
        self.model, self.length = model, len(token_ids)
        with torch.no_grad():
            _, cache = model.processed.run_with_cache(torch.tensor([token_ids]))
        self.cache = {key: value[0].double().numpy() for key, value in cache.items() if len(value)}
        self.svds: dict[tuple[int, int], tuple[Array, Array, Array]] = {}

    def __getitem__(self, key: str) -> Array:
        return self.cache[key]

    # ---- the stream and its writers --------------------------------------------------------------

    def normalised(self, layer: int, position: int, x: Array) -> Array:
        """`x` as the norm before `layer` makes it with its scale at `position` frozen."""
        last = layer == self.model.config.n_layers
        name = f"blocks.{layer - 1}.hook_resid_post" if last else f"blocks.{layer}.hook_resid_pre"
        whole = self[name][position]
        if self.model.config.normalization == "LN":
            whole, x = whole - whole.mean(), x - x.mean()
        return x / float(np.sqrt(np.mean(whole**2) + self.model.config.eps))

    def written(self, layer: int, position: int) -> dict[Item, Array]:
        """What every writer before `layer` wrote at `position`, heads by the token they read."""
        weights, config = self.model.weights, self.model.config
        found = {("embedding", -1, -1, position, -1): self["hook_embed"][position]}
        if "hook_pos_embed" in self.cache:
            found["position", -1, -1, position, -1] = self["hook_pos_embed"][position]
        for up in range(layer):
            found["bias", up, -1, position, -1] = weights.b_O[up].double().numpy()
            found["mlp", up, -1, position, -1] = self[f"blocks.{up}.hook_mlp_out"][position]
            v = self[f"blocks.{up}.attn.hook_v"]
            group = config.n_heads // v.shape[1]
            for head in range(config.n_heads):
                W_O = weights.W_O[up, head].double().numpy()
                for token in range(position + 1):
                    attention = self[f"blocks.{up}.attn.hook_pattern"][head, position, token]
                    value = v[token, head // group] @ W_O
                    found["head", up, head, position, token] = attention * value
        return found

    # ---- scores ----------------------------------------------------------------------------------

    def rotation(self, offset: int) -> Array:
        """R of an offset, acting on columns: dimension a is paired with a + d_head / 2."""
        d_head = self.model.config.d_head
        result = np.eye(d_head)
        if self.model.config.positional != "rotary":
            return result
        half = d_head // 2
        for a in range(half):
            angle = offset * 10000.0 ** (-2 * a / d_head)
            result[a, a] = result[a + half, a + half] = np.cos(angle)
            result[a, a + half], result[a + half, a] = -np.sin(angle), np.sin(angle)
        return result

    def weights_of(self, layer: int, head: int) -> list[Array]:
        w: Any = self.model.weights
        return [part[layer, head].double().numpy() for part in (w.W_Q, w.b_Q, w.W_K, w.b_K)]

    def svd(self, layer: int, head: int) -> tuple[Array, Array, Array]:
        if (layer, head) not in self.svds:
            W_Q, _, W_K, _ = self.weights_of(layer, head)
            U, S, Vt = np.linalg.svd(W_Q @ W_K.T)
            rank = self.model.config.d_head
            self.svds[layer, head] = U[:, :rank], S[:rank], Vt[:rank].T
        return self.svds[layer, head]

    def terms(self, layer: int, head: int, d: int, side: str) -> dict[Term, Array]:
        """Array score[component, token read, k, source] of one row."""
        U, S, V = self.svd(layer, head)
        W_Q, b_Q, W_K, b_K = self.weights_of(layer, head)
        c_d, c_s = b_Q @ np.linalg.pinv(W_Q), b_K @ np.linalg.pinv(W_K)
        scale = self.model.config.d_head**-0.5
        sources = range(d + 1)
        # R_d^T R_s turns by s - d; M_p = W_K^+T R_p W_K^T.
        turned = [np.linalg.pinv(W_K).T @ self.rotation(s - d) @ W_K.T for s in sources]

        def at(position: int, offset: Array) -> dict[Item, Array]:
            parts = {
                item: self.normalised(layer, position, output)
                for item, output in self.written(layer, position).items()
            }
            parts["offset", -1, -1, position, -1] = offset
            return parts

        found: dict[Term, Array] = {}
        of_destination = at(d, c_d)
        of_sources = [at(s, c_s) for s in sources]
        x_d = sum(of_destination.values())
        x_s = [sum(parts.values()) for parts in of_sources]
        for k in range(len(S)):
            if side == "destination":
                for item, part in of_destination.items():
                    found[item, k] = np.array(
                        [
                            scale * (part @ U[:, k]) * S[k] * (V[:, k] @ turned[s] @ x_s[s])
                            for s in sources
                        ]
                    )
            else:
                for s in sources:
                    for item, part in of_sources[s].items():
                        row = np.zeros(d + 1)
                        row[s] = scale * (x_d @ U[:, k]) * S[k] * (V[:, k] @ turned[s] @ part)
                        found[item, k] = row
        return found

    # ---- ACC -------------------------------------------------------------------------------------

    def acc(
        self, layer: int, head: int, d: int, source: int, side: str, fraction: float = 0.7
    ) -> tuple[list[int], dict[Item, float], set[Item]]:
        """S, contributions of all items, and the kept ones."""
        relative = {}
        for term, row in self.terms(layer, head, d, side).items():
            others = [row[s] for s in range(d + 1) if s != source]
            relative[term] = row[source] - sum(others) / len(others)
        by_k: dict[int, float] = {}
        for (_, k), value in relative.items():
            by_k[k] = by_k.get(k, 0.0) + value
        chosen = _prefix(by_k, 1.0)
        effects: dict[Item, float] = {}
        for (item, k), value in relative.items():
            effects[item] = effects.get(item, 0.0) + (value if k in chosen else 0.0)
        return sorted(chosen), effects, set(_prefix(effects, fraction))

    # ---- ACC++ -----------------------------------------------------------------------------------

    @staticmethod
    def attention(row: Array) -> Array:
        e = np.exp(row - row.max())
        return np.asarray(e / e.sum())

    def acc_plus(self, layer: int, head: int, d: int, source: int, side: str) -> PlusChoice:
        """Remove terms by integrated gradient until attention is below tau(d)."""
        terms = self.terms(layer, head, d, side)
        row = np.sum(list(terms.values()), axis=0)
        gradient = np.zeros(d + 1)
        for step in range(64):
            for end in (step, step + 1):  # both ends of a trapezoid
                a = self.attention(row * end / 64)
                own = -a[source] * a
                own[source] += a[source]
                gradient += own / (2 * 64)
        order = sorted(terms, key=lambda term: -float(gradient @ terms[term]))
        found, left = PlusChoice(), row.copy()
        now = float(self.attention(left)[source])
        for term in order:
            if now < min(1.0, 2.5 / (d + 1)) or gradient @ terms[term] <= 0:
                break
            left = left - terms[term]
            after = float(self.attention(left)[source])
            found.lost[term[0]] = found.lost.get(term[0], 0.0) + now - after
            found.removed.append(term)
            now = after
        found.left = now
        return found

    # ---- seeds -----------------------------------------------------------------------------------

    def log_p_seeds(self, answer: int, share: float) -> list[tuple[int, int, int]]:
        """(layer, head, token read) of heads whose removal, in order, destroys log p(answer)."""
        n_layers, end = self.model.config.n_layers, self.length - 1
        W_U = self.model.weights.W_U.double().numpy()
        parts = {
            item: self.normalised(n_layers, end, output) @ W_U
            for item, output in self.written(n_layers, end).items()
        }
        parts["offset", -1, -1, end, -1] = self.model.weights.b_U.double().numpy()
        logits = np.sum(list(parts.values()), axis=0)

        def log_p(of: Array) -> float:
            return float(of[answer] - of.max() - np.log(np.exp(of - of.max()).sum()))

        gradient = np.zeros_like(logits)
        for step in range(64):
            for at in (step, step + 1):
                own = -self.attention(logits * at / 64)
                own[answer] += 1
                gradient += own / (2 * 64)
        start, found = log_p(logits), []
        for item in sorted(parts, key=lambda item: -float(gradient @ parts[item])):
            logits = logits - parts[item]
            kind, layer, head, _, token = item
            if kind == "head":
                found.append((layer, head, token))
            if start - log_p(logits) >= share * (start + np.log(len(logits))):
                break
        return found


def _prefix(values: dict[Any, float], share: float) -> list[Any]:
    """The smallest set, largest share of the sum first, whose sum reaches `share` of it."""
    total = sum(values.values())
    sign = 1.0 if total >= 0 else -1.0
    reached, chosen = 0.0, []
    for key in sorted(values, key=lambda key: -sign * values[key]):
        if reached >= share * abs(total) - 1e-12 * sum(map(abs, values.values())):
            break
        if values[key] == 0:
            break
        reached += sign * values[key]
        chosen.append(key)
    return chosen
