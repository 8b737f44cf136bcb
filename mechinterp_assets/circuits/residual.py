"""The residual stream of a batch of prompts, split into what wrote it.

Belongs here: one forward pass with processed weights that keeps every writer of the residual
stream, the normalised inputs of each attention layer, patterns and scores. Does not belong here:
what is computed from them (slices.py, trace.py).

Writers, in the order in which they write: embedding, position (absolute positions only), then per
layer the attention output bias, each head's output z W_O, and the MLP. Everything that the
attention of layer l reads is therefore a prefix of the writers. With LayerNorm the residual stream
is centred here; writers stay as written, and whoever reads them uses centred reading vectors
(`pair_slices`), which is the same thing at less cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.model.identities import attention_scores, hooks_of_scores, identities_of
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import same_sum

WRITER_KINDS = ("embedding", "position", "bias", "head", "mlp")


@dataclass(frozen=True)
class Writers:
    """Names of the writers: kind (index into WRITER_KINDS), layer and head, -1 where none."""

    kind: np.ndarray
    layer: np.ndarray
    head: np.ndarray
    n_base: int
    n_heads: int

    @classmethod
    def of(cls, model: LanguageModel, n_layers: int) -> "Writers":
        """Writers of the first `n_layers` layers."""
        base = ["embedding"] + ["position"] * (model.config.positional == "absolute")
        rows = [(WRITER_KINDS.index(kind), -1, -1) for kind in base]
        for layer in range(n_layers):
            rows.append((WRITER_KINDS.index("bias"), layer, -1))
            rows += [
                (WRITER_KINDS.index("head"), layer, head) for head in range(model.config.n_heads)
            ]
            rows.append((WRITER_KINDS.index("mlp"), layer, -1))
        kind, layers, heads = np.array(rows).T
        return cls(kind, layers, heads, len(base), model.config.n_heads)

    def before(self, layer: int) -> int:
        """Number of writers that the attention of `layer` reads."""
        return self.n_base + layer * (self.n_heads + 2)

    def first_head(self, layer: int) -> int:
        """Index of head 0 of `layer`; its other heads follow."""
        return self.before(layer) + 1

    def is_head(self, layer: int) -> np.ndarray:
        """Which of the writers before `layer` are heads [writer]."""
        return np.asarray(self.kind[: self.before(layer)] == WRITER_KINDS.index("head"))


@dataclass(frozen=True)
class ResidualStream:
    """One group of prompts of equal length.

    outputs [prompt, position, writer, d_model], as written; residual [layer] of [prompt, position,
    d_model], before each layer, centred where the model has LayerNorm; pattern, score [layer] of
    [prompt, head, destination, source], score being q . k / sqrt(d_head) as the model computes it.
    """

    writers: Writers
    outputs: Tensor
    residual: tuple[Tensor, ...]
    pattern: tuple[Tensor, ...]
    score: tuple[Tensor, ...]
    eps: float

    def scale(self, layer: int) -> Tensor:
        """Normalisation scale s = sqrt(mean x^2 + eps) [prompt, position], float64."""
        return self._scales[layer]

    @cached_property
    def _scales(self) -> tuple[Tensor, ...]:
        return tuple((x.double().square().mean(-1) + self.eps).sqrt() for x in self.residual)

    def normalised(self, layer: int) -> Tensor:
        """Input of the attention of `layer`: x / s [prompt, position, d_model], float64."""
        return self.residual[layer].double() / self.scale(layer)[..., None]


def attention_scales(model: LanguageModel) -> tuple[float, ...]:
    """What the attention of each layer multiplies q . k by [layer]."""
    return tuple(form.scale for form in identities_of(model).attention)


def prompt_bytes(model: LanguageModel, length: int, n_layers: int) -> int:
    """Memory of one prompt's residual stream, forward cache included."""
    config = model.config
    writers = Writers.of(model, n_layers)
    per_token = (len(writers.kind) + 2 * config.n_layers + n_layers) * config.d_model
    per_token += config.n_layers * (config.d_z + 2 * config.n_heads * length)
    return int(per_token * length * max(torch.finfo(model.dtype).bits, 32) // 8)


@torch.no_grad()
def residual_stream(
    model: LanguageModel, ids: Tensor, n_layers: int, *, device: torch.device
) -> ResidualStream:
    """Run `ids` [prompt, position] once and split the residual stream before layers < `n_layers`.

    Writers are those before layer `n_layers - 1` reads. Raises CircuitError when they do not add up
    to the residual stream, as with norms behind attention or MLP.
    """
    bridge, last = model.processed, n_layers - 1
    wanted = {f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)}
    wanted |= {
        f"blocks.{layer}.attn.hook_{what}"
        for layer in range(n_layers)
        for what in ("pattern", *hooks_of_scores(model))
    }
    wanted |= {
        f"blocks.{layer}.{w}" for layer in range(last) for w in ("attn.hook_z", "hook_mlp_out")
    }
    if model.config.positional == "absolute":
        wanted.add("hook_pos_embed")
    keep: Callable[[str], bool] = wanted.__contains__
    _, cache = bridge.run_with_cache(ids.to(model.device), names_filter=keep, logits_to_keep=1)

    writers = Writers.of(model, last)
    shape = (*ids.shape, len(writers.kind), model.config.d_model)
    start = cache["blocks.0.hook_resid_pre"]
    outputs = torch.empty(shape, dtype=start.dtype, device=model.device)
    if writers.n_base == 2:
        outputs[:, :, 1] = cache["hook_pos_embed"]
        start = start - outputs[:, :, 1]
    outputs[:, :, 0] = start
    for layer in range(last):
        at, heads = writers.first_head(layer), model.config.n_heads
        outputs[:, :, at - 1] = model.weights.b_O[layer]
        z = cache[f"blocks.{layer}.attn.hook_z"].reshape(*ids.shape, heads, -1)
        W_O = model.weights.W_O[layer]
        outputs[:, :, at : at + heads] = torch.einsum("bthk,hkd->bthd", z, W_O)
        outputs[:, :, at + heads] = cache[f"blocks.{layer}.hook_mlp_out"]
    residual = [cache[f"blocks.{layer}.hook_resid_pre"] for layer in range(n_layers)]
    _check_sum(model, outputs, residual[last])
    if model.config.normalization == "LN":
        residual = [x - x.mean(-1, keepdim=True) for x in residual]
    return ResidualStream(
        writers,
        outputs.to(device),
        tuple(x.to(device) for x in residual),
        tuple(cache[f"blocks.{layer}.attn.hook_pattern"].to(device) for layer in range(n_layers)),
        tuple(attention_scores(model, cache, layer).to(device) for layer in range(n_layers)),
        model.config.eps,
    )


def _check_sum(model: LanguageModel, outputs: Tensor, residual: Tensor) -> None:
    error = float((outputs.sum(2) - residual).norm() / residual.norm())
    if not error <= same_sum(model.dtype):
        raise CircuitError(
            f"the writers of {model.source} add up to its residual stream only to a relative error "
            f"of {error:.2g}; tracing needs blocks that add head and MLP outputs unchanged "
            "(no norm behind them)"
        )
