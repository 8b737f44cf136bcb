"""A model's attention scores as linear functions of the residual stream, with every norm frozen.

Belongs here: raw weights with the norms' gains folded in, one forward pass split into what wrote
the residual stream, and the scale that each norm had at each position. Does not belong here: terms
of one row of scores (score_terms.py), what is selected among them (acc.py).

With the scales r of all norms held fixed, a layer reads its queries from a stream x as
  q_d = r_q[d] (r[d] x_d W_Q + b_Q),   r[d] = 1 / sqrt(mean x_d^2 + eps),
r_q being that of a query norm. W_Q has the gains of both norms and, with LayerNorm, the centring of
x folded in; b_Q has the norm's bias. Keys likewise. The stream is a sum of writers: embedding,
position, and per layer what each head wrote of each token, A[d, t] v_t W_O, what biases wrote, and
the MLP; a norm behind attention is frozen too (r_post[d], its gain folded into W_O). Scores are
  score(d, s) = scale q_d R_d R_s^T k_s,   attention = softmax(cap tanh(score / cap)),
R being the rotation of rotary positions and the cap there where the model has one.

Raw weights serve every architecture: also those whose norms TransformerLens does not fold. Omega =
W_Q W_K^T is that of processed weights.

Source: ACC and ACC++, by the authors of FC24, for any decoder: RoPE, grouped queries, caps, norms
behind attention, norms of queries and keys.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mechinterp_assets.circuits.errors import CircuitError
from mechinterp_assets.circuits.soft_cap import capped, soft_cap
from mechinterp_assets.model.agreement import ALLOWED, disagreement
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.norm_probe import norm_answers
from mechinterp_assets.model.query_key import ScoreForm, found_form


@dataclass(frozen=True)
class NormForm:
    """A norm as y = r (x - mean x, where it centres) * gain + bias, r a number per vector."""

    gain: Tensor
    bias: Tensor
    centres: bool

    @classmethod
    def of(cls, module: Any, width: int, model: LanguageModel) -> "NormForm":
        """Asked of the module with three inputs (model/norm_probe.py).

        The gain is right up to a factor that r makes up for (eps).
        """
        module = getattr(module, "original_component", module)
        probe = torch.ones(3, width, dtype=torch.float64)
        probe[0] = 0
        probe[1, 1::2] = -1
        bias, turned, ones = norm_answers(model, module, probe)
        gain = (turned - bias) * probe[1].to(bias)
        centres = bool((ones - bias).norm() < 1e-3 * gain.norm())
        return cls(gain, bias, centres)

    @classmethod
    def none(cls, width: int, device: torch.device) -> "NormForm":
        """What does nothing, with r = 1."""
        one = torch.ones(width, dtype=torch.float64, device=device)
        return cls(one, torch.zeros_like(one), False)

    def centred(self, x: Tensor) -> Tensor:
        """x as the norm scales it."""
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def scale(self, x: Tensor, y: Tensor) -> Tensor:
        """r [...] of inputs x and outputs y [..., width]: least squares, exact for such a norm."""
        linear = self.centred(x) * self.gain
        squares = linear.square().sum(-1).clamp(min=torch.finfo(torch.float64).tiny)
        return ((y - self.bias) * linear).sum(-1) / squares

    def into(self, W: Tensor) -> Tensor:
        """W [..., width, out] reading the norm's output, as it reads x: gain and centring in it."""
        W = self.gain[:, None] * W
        return W - W.mean(-2, keepdim=True) if self.centres else W

    def behind(self, W: Tensor) -> Tensor:
        """W [..., width] that writes through the norm: centred, times gain."""
        return self.centred(W) * self.gain


@dataclass(frozen=True)
class LayerWeights:
    """Folded weights of one attention layer, float64; keys and values repeated over query groups.

    W_Q, W_K [head, d_model, d_head], b_Q, b_K [head, d_head]; b_V [head, d_head], what values have
    at every token; W_O [head, d_head, d_model]; b_O [d_model], what b_V and the output bias write,
    before r_post; post_bias [d_model], of a norm behind attention.
    """

    W_Q: Tensor
    b_Q: Tensor
    W_K: Tensor
    b_K: Tensor
    b_V: Tensor
    W_O: Tensor
    b_O: Tensor
    post_bias: Tensor


@dataclass(frozen=True)
class ScoreRun:
    """One group of prompts of equal length; float64.

    base: "embedding", and "position" where absolute, -> [prompt, position, d_model]. By layer: mlp
    [layer, prompt, position, d_model], as added to the stream; values [layer, prompt, head,
    position, d_head], without b_V; pattern [layer, prompt, head, destination, source]; r [layer,
    prompt, position], of the norm before attention; r_post likewise, behind it; queries, keys
    [layer, prompt, head, position, d_head], norms in, not rotated; r_q, r_k [layer, prompt, head,
    position]; stream [layer, and behind the last one] of [prompt, position, d_model].
    """

    base: dict[str, Tensor]
    mlp: Tensor
    values: Tensor
    pattern: Tensor
    r: Tensor
    r_post: Tensor
    queries: Tensor
    keys: Tensor
    r_q: Tensor
    r_k: Tensor
    stream: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Positions of each prompt."""
        return int(self.pattern.shape[-1])


class ScoreModel:
    """A language model's raw weights in the form that ACC reads, and its forward pass."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.device = torch.device("cpu") if model.device.type == "mps" else model.device
        self._weights: dict[int, LayerWeights] = {}
        self._forms: dict[int, ScoreForm] = {}
        self._norms: dict[tuple[int, str], NormForm] = {}

    @cached_property
    def cap(self) -> float | None:
        """Where tanh caps scores, or None."""
        return soft_cap(self.model, "attn_scores_soft_cap")

    def capped(self, scores: Tensor) -> Tensor:
        """What the softmax is taken of."""
        return capped(scores, self.cap)

    def weights(self, layer: int) -> LayerWeights:
        """Folded weights of one layer."""
        if layer not in self._weights:
            self._weights[layer] = self._fold(layer)
        return self._weights[layer]

    def form(self, layer: int) -> ScoreForm:
        """Rotation, scale and window of a layer that `run` has seen."""
        return self._forms[layer]

    @torch.no_grad()
    def run(self, token_ids: Tensor, n_layers: int) -> ScoreRun:
        """Prompts token_ids [prompt, position] through the first `n_layers` layers.

        The stream of layer n_layers (or behind the last one) is kept too, so that n_layers may be
        that of the model to read the logits.
        Raises CircuitError where the writers do not add up to the stream or where scores are not of
        this form (ALiBi, a norm over the stream itself); the message says which.
        """
        model, config = self.model, self.model.config
        layers = range(n_layers)
        kept = ["hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post"]
        kept += ["attn.hook_pattern", "attn.hook_v"]
        kept += ["ln1.hook_out", "ln1_post.hook_in", "ln1_post.hook_out"]
        kept += [f"attn.{which}_norm.hook_{end}" for which in "qk" for end in ("in", "out")]
        names = {f"blocks.{layer}.{name}" for layer in layers for name in kept} | {"hook_pos_embed"}
        _, cache = model.raw.run_with_cache(
            token_ids.to(model.device),
            names_filter=names.__contains__,
            stop_at_layer=n_layers,  # no logits
        )

        def read(layer: int, name: str) -> Tensor:
            if (key := f"blocks.{layer}.{name}") not in cache:
                raise CircuitError(
                    f"{model.source} ({config.architecture}): its blocks have no {name}, so that "
                    "its residual stream is no sum of what blocks write; ACC cannot split it"
                )
            return self._here(cache[key])

        n, length = token_ids.shape
        stream = [read(layer, "hook_resid_pre") for layer in layers]
        stream.append(read(n_layers - 1, "hook_resid_post"))
        base = {"embedding": stream[0]}
        if config.positional == "absolute":
            position = self._here(cache["hook_pos_embed"]).expand_as(stream[0])
            base = {"embedding": stream[0] - position, "position": position}
        found: dict[str, list[Tensor]] = {name: [] for name in _RUN}
        for layer in layers:
            weights = self.weights(layer)
            norm = self._norm(layer, "ln1")
            one = torch.ones(n, length, dtype=torch.float64, device=self.device)
            has_norm = f"blocks.{layer}.ln1.hook_out" in cache
            r = norm.scale(stream[layer], read(layer, "ln1.hook_out")) if has_norm else one
            v = read(layer, "attn.hook_v").reshape(n, length, -1, config.d_head)
            v = v.repeat_interleave(config.n_heads // v.shape[2], dim=2) - weights.b_V
            pattern = read(layer, "attn.hook_pattern")
            z = torch.einsum("bhts,bshk->bthk", pattern, v)
            written = torch.einsum("bthk,hkd->btd", z, weights.W_O) + weights.b_O
            r_post = one
            if f"blocks.{layer}.ln1_post.hook_out" in cache:
                into, out = (read(layer, f"ln1_post.hook_{end}") for end in ("in", "out"))
                r_post = self._norm(layer, "ln1_post").scale(into, out)
            written = written * r_post[..., None] + weights.post_bias
            self._check(written, read(layer, "hook_attn_out"), layer, "what its heads wrote of")
            q, r_q = self._projected(layer, "q", stream[layer] * r[..., None], cache)
            k, r_k = self._projected(layer, "k", stream[layer] * r[..., None], cache)
            self._find_form(layer, q, k, pattern)
            for name, value in (
                ("mlp", read(layer, "hook_mlp_out")),
                ("values", v.transpose(1, 2)),
                ("pattern", pattern),
                ("r", r),
                ("r_post", r_post),
                ("queries", q.transpose(1, 2)),
                ("keys", k.transpose(1, 2)),
                ("r_q", r_q),
                ("r_k", r_k),
            ):
                found[name].append(value)
            stream_then = stream[layer] + written + found["mlp"][-1]
            self._check(stream_then, stream[layer + 1], layer, "its attention and MLP added to")
        return ScoreRun(
            base=base,
            stream=tuple(stream),
            **{name: torch.stack(values) for name, values in found.items()},
        )

    # ---- private ---------------------------------------------------------------------------------

    def _here(self, value: Tensor) -> Tensor:
        return value.detach().to(self.device).to(torch.float64)

    def _norm(self, layer: int, name: str) -> NormForm:
        """The norm `ln1`, `ln1_post`, `q` or `k` of a layer; none where the block has none."""
        if (layer, name) not in self._norms:
            block = self.model.raw.blocks[layer]
            held = block if name.startswith("ln") else block.attn
            module = getattr(held, name if name.startswith("ln") else f"{name}_norm", None)
            real = getattr(module, "original_component", None)
            config = self.model.config
            width = config.d_model
            if name in ("q", "k"):
                heads = config.n_heads if name == "q" else config.n_kv_heads
                size = sum(p.numel() for p in real.parameters()) if real is not None else 0
                # One gain for all heads, or one for each of their dimensions.
                width = heads * config.d_head if size == heads * config.d_head else config.d_head
            self._norms[layer, name] = (
                NormForm.none(width, self.device)
                if real is None
                else NormForm.of(real, width, self.model)
            )
        return self._norms[layer, name]

    def _head_norm(self, layer: int, which: str) -> NormForm:
        """A query or key norm with gain [head, d_head], keys repeated over query groups."""
        norm, config = self._norm(layer, which), self.model.config
        heads = config.n_heads if which == "q" else config.n_kv_heads
        gain, bias = (
            (part if len(part) > config.d_head or heads == 1 else part.repeat(heads))
            .view(heads, config.d_head)
            .repeat_interleave(config.n_heads // heads, dim=0)
            for part in (norm.gain, norm.bias)
        )
        return NormForm(gain, bias, norm.centres)

    def _fold(self, layer: int) -> LayerWeights:
        raw = self.model.raw_weights
        norm, post = self._norm(layer, "ln1"), self._norm(layer, "ln1_post")
        of_q, of_k = self._head_norm(layer, "q"), self._head_norm(layer, "k")
        for which, of in (("queries", of_q), ("keys", of_k)):
            if of.centres or bool(of.bias.any()):
                raise CircuitError(
                    f"{self.model.source}: layer {layer} subtracts a mean or adds a bias behind "
                    f"its norm of {which}; ACC needs an RMSNorm there"
                )
        W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O = (
            self._here(part[layer])
            for part in (
                *(raw.W_Q, raw.W_K, raw.W_V, raw.W_O),
                *(raw.b_Q, raw.b_K, raw.b_V, raw.b_O),
            )
        )
        scaled = getattr(self.model.adapter.cfg, "residual_multiplier", None) or 1.0
        b_V = b_V + norm.bias @ W_V
        b_O = b_O + torch.einsum("hk,hkd->d", b_V, W_O)
        return LayerWeights(
            W_Q=norm.into(W_Q) * of_q.gain[:, None],
            b_Q=(b_Q + norm.bias @ W_Q) * of_q.gain,
            W_K=norm.into(W_K) * of_k.gain[:, None],
            b_K=(b_K + norm.bias @ W_K) * of_k.gain,
            b_V=b_V,
            W_O=scaled * post.behind(W_O),
            b_O=scaled * post.behind(b_O),
            post_bias=scaled * post.bias,
        )

    def _projected(
        self, layer: int, which: str, normalised: Tensor, cache: Any
    ) -> tuple[Tensor, Tensor]:
        """Queries or keys [prompt, position, head, d_head] with their norm, and its r."""
        weights, config = self.weights(layer), self.model.config
        W, b = (weights.W_Q, weights.b_Q) if which == "q" else (weights.W_K, weights.b_K)
        x = torch.einsum("btd,hdk->bthk", normalised, W) + b
        name = f"blocks.{layer}.attn.{which}_norm.hook_"
        if f"{name}out" not in cache:
            r = x.new_ones(x.shape[0], config.n_heads, x.shape[1])
            return x, r
        into, out = (self._here(cache[f"{name}{end}"]) for end in ("in", "out"))
        r = self._norm(layer, which).scale(into, out)
        if r.ndim == 2:  # one norm over all heads
            r = r[:, None].expand(-1, config.n_heads, -1)
        else:
            heads = config.n_heads if which == "q" else config.n_kv_heads
            if r.shape[1] != heads:  # [prompt, position, head]
                r = r.transpose(1, 2)
            r = r.repeat_interleave(config.n_heads // heads, dim=1)
        return x * r.transpose(1, 2)[..., None], r

    def _find_form(self, layer: int, q: Tensor, k: Tensor, pattern: Tensor) -> None:
        model = self.model
        best = found_form(
            model.hf,
            model.attention_module(layer),
            layer,
            q,
            k,
            pattern,
            capped=self.capped,
            known=self._forms.get(layer),
        )
        if not best.error <= ALLOWED[model.dtype]:
            raise CircuitError(
                f"{model.source} ({model.config.architecture}): the attention of layer {layer} is "
                f"not the softmax of q . k (relative error {best.error:.2g}, allowed "
                f"{ALLOWED[model.dtype]:g}); ACC covers absolute and rotary positions, not biases "
                "by distance (ALiBi)"
            )
        self._forms[layer] = best

    def _check(self, found: Tensor, expected: Tensor, layer: int, what: str) -> None:
        error = disagreement(found, expected)
        if not error <= ALLOWED[self.model.dtype]:
            raise CircuitError(
                f"{self.model.source} ({self.model.config.architecture}): {what} the residual "
                f"stream in layer {layer} is not what writes it (relative error {error:.2g}, "
                f"allowed {ALLOWED[self.model.dtype]:g}); ACC needs a stream that is a sum"
            )


_RUN = ("mlp", "values", "pattern", "r", "r_post", "queries", "keys", "r_q", "r_k")
