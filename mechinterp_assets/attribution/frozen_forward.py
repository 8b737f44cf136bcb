"""One sequence's forward pass, split into what recursive attribution holds fixed and what it
follows.

Belongs here: running the raw model once and keeping, in float64, who wrote the residual stream, the
scale of each LayerNorm, attention patterns, values and z. Does not belong here: what is made of
them (rdfa.py).

With patterns and scales held fixed, what an attention layer reads is linear in the residual stream:
  n[s] = (x[s] - mean x[s]) / scale[s] * norm_gain + norm_bias   (RMSNorm: no mean, no bias)
  v_k[s] = n[s] W_V,k + b_V,k        z_k[D] = sum_s A_k[D, s] v_k[s]
and the residual stream before a layer is a sum of writers: embedding, position (absolute positions
only), and each earlier layer's attention and MLP outputs. Blocks whose attention and MLP run in
parallel are such sums too. Raw weights throughout, since SAEs read raw z.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from mechinterp_assets.model.identities import attention_scores, hooks_of_scores
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.norm_probe import norm_answers
from mechinterp_assets.model.precision import same_sum


class RdfaError(ValueError):
    """A model, SAE or feature that recursive attribution cannot start from; says what to change."""


@dataclass(frozen=True)
class AttentionWeights:
    """Raw weights of one attention layer and the norm before it, float64, on the CPU.

    W_V [head, d_model, d_head], b_V [head, d_head], repeated over query groups;
    W_O [head * d_head, d_model], b_O [d_model]; norm_gain, norm_bias [d_model].
    """

    W_V: Tensor
    b_V: Tensor
    W_O: Tensor
    b_O: Tensor
    norm_gain: Tensor
    norm_bias: Tensor


@dataclass(frozen=True)
class QueryKeyWeights:
    """Raw query and key weights of one attention layer, float64, on the CPU.

    W_Q, W_K [head, d_model, d_head], b_Q, b_K [head, d_head]; keys repeated over query groups.
    """

    W_Q: Tensor
    b_Q: Tensor
    W_K: Tensor
    b_K: Tensor


@dataclass(frozen=True)
class FrozenForward:
    """What happened at one sequence before and in layer `n_layers - 1`; float64, on the CPU.

    token_ids [position]; embedding [position, d_model]; position_embedding the same, None without
    absolute positions; attention, mlp [layer] of [position, d_model], outputs of the layers before
    the last, or of all where the run was whole; residual of [position, d_model], the stream before
    each layer and, where whole, behind the last; scale of [position], of the norms that read these;
    pattern [layer] of [head, destination, source]; v [layer] of [position, head, d_head], repeated
    over query groups; z [layer] of [position, head * d_head]; score: layers asked for -> [head,
    destination, source], what the softmax is taken of; logits [position, d_vocab], float32, where
    whole.
    """

    token_ids: Tensor
    embedding: Tensor
    position_embedding: Tensor | None
    attention: tuple[Tensor, ...]
    mlp: tuple[Tensor, ...]
    residual: tuple[Tensor, ...]
    scale: tuple[Tensor, ...]
    pattern: tuple[Tensor, ...]
    v: tuple[Tensor, ...]
    z: tuple[Tensor, ...]
    score: Mapping[int, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None


class FrozenModel:
    """A language model's raw weights in the form that attribution reads, and its forward pass."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self._layers: dict[int, AttentionWeights] = {}

    @property
    def centres(self) -> bool:
        """Whether norms of the residual stream subtract the mean."""
        return self.model.config.normalization == "LN"

    def weights(self, layer: int) -> AttentionWeights:
        """Weights of one attention layer."""
        if layer not in self._layers:
            raw, norm = self.model.raw_weights, self.model.raw.blocks[layer].ln1
            self._layers[layer] = AttentionWeights(
                exact(raw.W_V[layer]),
                exact(raw.b_V[layer]),
                exact(raw.W_O[layer]).flatten(0, 1),
                exact(raw.b_O[layer]),
                *self._norm(norm.original_component),
            )
        return self._layers[layer]

    @cached_property
    def final_norm(self) -> tuple[Tensor, Tensor]:
        """Gain and bias [d_model] of the norm before the unembedding."""
        return self._norm(self.model.raw.ln_final.original_component)

    @cached_property
    def mean_unembedding(self) -> Tensor:
        """Mean of W_U over the vocabulary [d_model]: what the mean logit reads."""
        W_U = self.model.raw_weights.W_U.cpu()  # not every device has float64
        return W_U.mean(dim=1, dtype=torch.float64)

    def query_key(self, layer: int) -> QueryKeyWeights:
        """Query and key weights of one attention layer."""
        raw = self.model.raw_weights
        return QueryKeyWeights(
            *(exact(part[layer]) for part in (raw.W_Q, raw.b_Q, raw.W_K, raw.b_K))
        )

    @torch.no_grad()
    def run(
        self, token_ids: Tensor, n_layers: int, *, scores: Collection[int] = ()
    ) -> FrozenForward:
        """One sequence token_ids [position] through the first `n_layers` layers.

        scores: layers whose attention scores are kept too.

        Raises:
            RdfaError: the writers do not add up to the residual stream, or values are not linear in
                the normalised residual stream: attribution would not be exact.
        """
        forward = self._read(token_ids, n_layers, scores=scores)
        self.check(forward)
        return forward

    @torch.no_grad()
    def whole_run(self, token_ids: Tensor) -> FrozenForward:
        """One sequence through the model to its logits; see `check` before its parts are added."""
        return self._read(token_ids, self.model.config.n_layers, whole=True)

    def _read(
        self,
        token_ids: Tensor,
        n_layers: int,
        *,
        scores: Collection[int] = (),
        whole: bool = False,
    ) -> FrozenForward:
        last, model = n_layers if whole else n_layers - 1, self.model
        keep = {f"blocks.{layer}.hook_resid_pre" for layer in range(n_layers)}
        keep |= {
            f"blocks.{layer}.attn.hook_{part}"
            for layer in range(n_layers)
            for part in ("pattern", "v", "z")
        }
        keep |= {
            f"blocks.{layer}.hook_{part}"
            for layer in range(last)
            for part in ("attn_out", "mlp_out")
        }
        if scores:
            kinds = ("pattern", *hooks_of_scores(model))
            keep |= {f"blocks.{layer}.attn.hook_{kind}" for layer in scores for kind in kinds}
        absolute = model.config.positional == "absolute"
        if absolute:
            keep.add("hook_pos_embed")
        behind = f"blocks.{n_layers - 1}.hook_resid_post"
        if whole:
            keep.add(behind)
        logits, cache = model.raw.run_with_cache(
            token_ids[None].to(model.device),
            names_filter=keep.__contains__,
            stop_at_layer=None if whole else n_layers,
        )

        def read(name: str) -> Tensor:
            return exact(cache[name][0])

        residual = [read(f"blocks.{layer}.hook_resid_pre") for layer in range(n_layers)]
        if whole:
            residual.append(read(behind))
        positions = read("hook_pos_embed") if absolute else None
        z = [read(f"blocks.{layer}.attn.hook_z").flatten(1) for layer in range(n_layers)]
        values = []
        for layer in range(n_layers):
            v = read(f"blocks.{layer}.attn.hook_v")
            values.append(v.repeat_interleave(model.config.n_heads // v.shape[1], dim=1))
        return FrozenForward(
            token_ids=token_ids.cpu(),
            embedding=residual[0] if positions is None else residual[0] - positions,
            position_embedding=positions,
            attention=tuple(read(f"blocks.{layer}.hook_attn_out") for layer in range(last)),
            mlp=tuple(read(f"blocks.{layer}.hook_mlp_out") for layer in range(last)),
            residual=tuple(residual),
            scale=tuple(self._scale(x) for x in residual),
            pattern=tuple(read(f"blocks.{layer}.attn.hook_pattern") for layer in range(n_layers)),
            v=tuple(values),
            z=tuple(z),
            score={layer: exact(attention_scores(model, cache, layer)[0]) for layer in scores},
            logits=logits[0].float().cpu() if whole else None,
        )

    def _centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def _scale(self, residual: Tensor) -> Tensor:
        squares = self._centred(residual).square().mean(-1)
        return (squares + self.model.config.eps).sqrt()

    def _norm(self, norm: nn.Module) -> tuple[Tensor, Tensor]:
        """Gain and bias of a norm of the residual stream, from two inputs."""
        probe = torch.ones(self.model.config.d_model, dtype=torch.float64)
        probe[1::2] = -1
        centred = self._centred(probe)
        inputs = torch.stack([torch.zeros_like(probe), probe])
        bias, answer = exact(norm_answers(self.model, norm, inputs))
        return (answer - bias) * self._scale(probe) / centred, bias

    @cached_property
    def tolerance(self) -> float:
        """Relative error of an identity of the model's own activations."""
        return same_sum(self.model.dtype)

    def check(self, forward: FrozenForward) -> None:
        """Raise RdfaError unless attribution over this run would be exact (see `run`)."""
        residual, last = forward.residual, len(forward.residual) - 1
        whole = forward.embedding.clone()
        if forward.position_embedding is not None:
            whole += forward.position_embedding
        for attention, mlp in zip(forward.attention, forward.mlp, strict=True):
            whole += attention + mlp
        error = _relative(whole, residual[last])
        if not error <= self.tolerance:
            raise RdfaError(
                f"the writers of {self.model.source} add up to its residual stream behind {last} "
                f"layers only to a relative error of {error:.2g}; recursive attribution needs "
                "blocks that add attention and MLP outputs unchanged (no norm behind them)"
            )
        for layer, x in enumerate(residual[: len(forward.v)]):
            weights = self.weights(layer)
            n = self._centred(x) / forward.scale[layer][:, None] * weights.norm_gain
            v = torch.einsum("sd,kde->ske", n + weights.norm_bias, weights.W_V) + weights.b_V
            error = _relative(v, forward.v[layer])
            if not error <= self.tolerance:
                raise RdfaError(
                    f"the values of layer {layer} of {self.model.source} differ from W_V applied "
                    f"to the normalised residual stream by {error:.2g} relative; recursive "
                    "attribution needs one LayerNorm or RMSNorm before attention and nothing "
                    "behind W_V"
                )


# ---- private -------------------------------------------------------------------------------------


def _relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to what is expected; 0 where both are 0."""
    difference, size = float((found - expected).norm()), float(expected.norm())
    return difference / size if size else (float("inf") if difference else 0.0)


def exact(value: Tensor) -> Tensor:
    """The value as float64 on the CPU."""
    return value.detach().to("cpu", torch.float64)
