"""What must hold of a loaded model for analyses of it to be true, measured on a few real tokens.

Belongs here: the identities, each as the error that it has on this model. Does not belong here:
which analysis rests on which (capabilities.py).

  bridge      logits of the bridge over raw weights, and its z, are those of the model itself
  processed   log probabilities of processed weights are those of raw weights
  values      z is the pattern times the values
  value_weights  values are W_V on the normed residual stream, the norm being one gain and bias
  heads       sum over heads of z W_O + b_O is what attention adds to the residual stream, and a
              head of the last layer that is ablated takes its z W_O away from it
  stream      the residual stream is the sum of what embedding, attention and MLPs wrote
  logits      logits are W_U on the normalised stream + b_U (processed weights)
  scores      softmax of scale * q . k, rotated, is the attention pattern; q and k are W_Q and W_K
              on the normalised stream (processed weights)
  embedding   the stream begins as W_E of the token, + W_pos (processed weights)
  blocks      attention, then an MLP that reads the stream with what attention wrote
  mlp         the MLP is W_out of an activation of W_in, gated or not, on the normalised stream
              (processed weights)
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mechinterp_assets.model.agreement import ALLOWED, disagreement, worst
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.mlp_weights import MlpWeights, activation_of
from mechinterp_assets.model.partial_forward import mlp_output
from mechinterp_assets.model.probe_tokens import probe_tokens
from mechinterp_assets.model.query_key import ScoreForm, found_form

View = Literal["raw", "processed"]
IDENTITIES = (
    "bridge",
    "processed",
    "values",
    "value_weights",
    "heads",
    "stream",
    "logits",
    "scores",
    "embedding",
    "blocks",
    "mlp",
)


class BrokenIdentityError(Exception):
    """An identity that cannot hold; the message says what breaks it."""


def identities_of(model: LanguageModel) -> "Identities":
    """The identities of a model, measured once."""
    if Identities not in model.measured:
        model.measured[Identities] = Identities(model)
    found = model.measured[Identities]
    assert isinstance(found, Identities)
    return found


def hooks_of_scores(model: LanguageModel) -> tuple[str, ...]:
    """What attention_scores needs of a layer, beside its pattern: names behind `hook_`."""
    return ("attn_scores",) if identities_of(model).hooks_scores else ("q", "k")


def attention_scores(model: LanguageModel, cache: Mapping[str, Tensor], layer: int) -> Tensor:
    """What the softmax of a layer is taken of [batch, head, destination, source], from a run that
    kept its pattern and hooks_of_scores; -inf where a query does not see a key.
    """
    name = f"blocks.{layer}.attn.hook_"
    if identities_of(model).hooks_scores:
        return cache[f"{name}attn_scores"]
    scores = identities_of(model).attention[layer].scores(cache[f"{name}q"], cache[f"{name}k"])
    return scores.masked_fill(cache[f"{name}pattern"] == 0, float("-inf"))


class Identities:
    """The identities of one loaded model; each is measured when it is first asked for.

    An identity that cannot even be computed (a hook or weight that the architecture lacks) has an
    infinite error.
    """

    def __init__(self, model: LanguageModel, token_ids: Tensor | None = None) -> None:
        self._model = model
        config = model.config
        self.token_ids = (
            probe_tokens(model.tokenizer, model.bos_token_id, config.d_vocab, config.n_ctx)
            if token_ids is None
            else token_ids
        ).to(model.device)
        self._errors: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._because: dict[str, str] = {}

    @property
    def allowed(self) -> float:
        """Largest error of an identity that holds."""
        return ALLOWED[self._model.dtype]

    def error(self, identity: str) -> float:
        """Relative rms error of an identity, the worst over layers."""
        if identity not in self._errors:
            measure: Callable[[], float] = getattr(self, f"_{identity}")
            try:
                with torch.no_grad():
                    self._errors[identity] = worst([measure()])
            except BrokenIdentityError as broken:
                self._errors[identity], self._because[identity] = float("inf"), str(broken)
            except Exception as error:  # of libraries: a hook or weight that is not there
                self._errors[identity] = float("inf")
                self._why[identity] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        return self._errors[identity]

    def holds(self, identity: str) -> bool:
        """Whether an identity holds within what the model's precision allows."""
        return self.error(identity) <= self.allowed

    def why(self, identity: str) -> str:
        """What kept an identity from being computed, or ''."""
        self.error(identity)
        return self._why.get(identity, "")

    def because(self, identity: str) -> str | None:
        """What breaks an identity, where measuring it found that."""
        self.error(identity)
        return self._because.get(identity)

    @cached_property
    def attention(self) -> tuple[ScoreForm, ...]:
        """The form of every layer's attention scores, found in its patterns."""
        with torch.no_grad():
            return tuple(self._form(layer) for layer in range(self._model.config.n_layers))

    @cached_property
    def hooks_rotated(self) -> bool:
        """Whether the bridge shows queries and keys as attention multiplies them."""
        return all(
            f"blocks.{layer}.attn.hook_rot_{what}" in self._raw[1]
            for layer in range(self._model.config.n_layers)
            for what in "qk"
        )

    @cached_property
    def hooks_scores(self) -> bool:
        """Whether hook_attn_scores shows what the softmax is taken of.

        Bridges around an attention module of transformers' own show the pattern in its place.
        """
        for layer in range(self._model.config.n_layers):
            name = f"blocks.{layer}.attn.hook_"
            pattern = self._raw[1][f"{name}pattern"].float()
            scores = self._raw[1][f"{name}attn_scores"].float()
            found = scores.masked_fill(pattern == 0, float("-inf")).softmax(-1)
            if not disagreement(found, pattern) <= self.allowed:
                return False
        return True

    # ---- runs ------------------------------------------------------------------------------------

    def _run(self, view: View) -> tuple[Tensor, Any]:
        kept = ["hook_resid_pre", "hook_resid_post", "hook_attn_out", "hook_mlp_out"]
        attention = ("z", "pattern", "q", "k", "v", "attn_scores", "rot_q", "rot_k")
        kept += [f"attn.hook_{name}" for name in attention]
        names = {
            f"blocks.{layer}.{name}"
            for layer in range(self._model.config.n_layers)
            for name in kept
        } | {"hook_pos_embed"}
        bridge: Any = getattr(self._model, view)
        logits, cache = bridge.run_with_cache(self.token_ids, names_filter=names.__contains__)
        return logits, cache

    @cached_property
    def _raw(self) -> tuple[Tensor, Any]:
        return self._run("raw")

    @cached_property
    def _done(self) -> tuple[Tensor, Any]:
        return self._run("processed")

    def _runs(self) -> list[tuple[View, Any]]:
        return [("raw", self._raw[1]), ("processed", self._done[1])]

    def _by_head(self, value: Tensor) -> Tensor:
        """[batch, position, head, d_head], keys and values repeated over their query group."""
        value = value.reshape(*value.shape[:2], -1, self._model.config.d_head)
        return value.repeat_interleave(self._model.config.n_heads // value.shape[2], dim=2)

    def _normalised(self, x: Tensor) -> Tensor:
        config = self._model.config
        if config.normalization == "LN":
            x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + config.eps).sqrt()

    # ---- identities ------------------------------------------------------------------------------

    def _bridge(self) -> float:
        model, caught = self._model, {}

        def catch(layer: int) -> Any:
            def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
                caught[layer] = args[0].detach()

            return hook

        layers = range(model.config.n_layers)
        handles = [
            model.output_projection(layer).register_forward_pre_hook(catch(layer))
            for layer in layers
        ]
        try:
            logits = model.hf(input_ids=self.token_ids, use_cache=False).logits
        finally:
            for handle in handles:
                handle.remove()
        found, cache = self._raw
        z = (cache[f"blocks.{layer}.attn.hook_z"].flatten(2) for layer in layers)
        errors = [
            disagreement(value, caught[layer]) for layer, value in zip(layers, z, strict=True)
        ]
        return worst([disagreement(found, logits), *errors])

    def _processed(self) -> float:
        raw, processed = (run[0].float().log_softmax(-1) for run in (self._raw, self._done))
        return disagreement(processed, raw)

    def _values(self) -> float:
        errors = []
        for _, cache in self._runs():
            for layer in range(self._model.config.n_layers):
                v, z = (self._by_head(cache[f"blocks.{layer}.attn.hook_{part}"]) for part in "vz")
                pattern = cache[f"blocks.{layer}.attn.hook_pattern"].to(v)
                errors.append(disagreement(torch.einsum("bhts,bshk->bthk", pattern, v), z))
        return worst(errors)

    def _value_weights(self) -> float:
        errors = []
        for view, cache in self._runs():
            weights = self._model.raw_weights if view == "raw" else self._model.weights
            for layer in range(self._model.config.n_layers):
                v = self._by_head(cache[f"blocks.{layer}.attn.hook_v"])
                x = cache[f"blocks.{layer}.hook_resid_pre"]
                normed = self._normalised(x) if view == "processed" else self._raw_norm(layer, x)
                found = torch.einsum("btd,hdk->bthk", normed.to(x), weights.W_V[layer].to(x))
                errors.append(disagreement(found + weights.b_V[layer].to(x), v))
        return worst(errors)

    def _raw_norm(self, layer: int, x: Tensor) -> Tensor:
        """What the layer's own norm makes of x, if it is one gain and bias on the normalised x."""
        norm = self._model.raw.blocks[layer].ln1
        dtype = self._model.dtype
        ends = torch.stack(
            [torch.zeros_like(x[:1, 0]), torch.linspace(-1, 1, x.shape[-1]).to(x)[None]]
        )
        answers: Tensor = norm(ends.to(dtype)).to(x)[:, 0]
        gain: Tensor = (answers[1] - answers[0]) / self._normalised(ends[1, 0])
        return self._normalised(x) * gain + answers[0]

    def _heads(self) -> float:
        errors = []
        for view, cache in self._runs():
            weights = self._model.raw_weights if view == "raw" else self._model.weights
            for layer in range(self._model.config.n_layers):
                z = self._by_head(cache[f"blocks.{layer}.attn.hook_z"])
                out = torch.einsum("bthk,hkd->btd", z, weights.W_O[layer].to(z))
                expected = cache[f"blocks.{layer}.hook_attn_out"]
                errors.append(disagreement(out + weights.b_O[layer].to(z), expected))
            errors.append(self._ablated(view, cache))
        return worst(errors)

    def _ablated(self, view: View, cache: Any) -> float:
        """Ablating head 0 of the last layer: what the stream loses, beside the MLP's own change."""
        last = self._model.config.n_layers - 1
        bridge: Any = getattr(self._model, view)
        weights = self._model.raw_weights if view == "raw" else self._model.weights
        kept: dict[str, Tensor] = {}

        def without(z: Tensor, hook: Any) -> Tensor:
            z = z.clone().reshape(*z.shape[:2], self._model.config.n_heads, -1)
            z[:, :, 0] = 0
            return z

        def keep(name: str) -> Any:
            def hook(value: Tensor, hook: Any) -> None:
                kept[name] = value.clone()

            return hook

        names = [f"blocks.{last}.{name}" for name in ("hook_resid_post", "hook_mlp_out")]
        hooks = [(name, keep(name)) for name in names]
        shape_of_z = cache[f"blocks.{last}.attn.hook_z"].shape
        hooks.append(
            (f"blocks.{last}.attn.hook_z", lambda z, hook: without(z, hook).reshape(shape_of_z))
        )
        bridge.run_with_hooks(self.token_ids, fwd_hooks=hooks)
        post, mlp = (kept[name].float() - cache[name].float() for name in names)
        z = self._by_head(cache[f"blocks.{last}.attn.hook_z"])[:, :, 0].float()
        lost = post - mlp + z @ weights.W_O[last, 0].float()
        # Relative to the stream: a head may write next to nothing of it.
        stream = cache[names[0]].float()
        return disagreement(stream + lost, stream)

    def _stream(self) -> float:
        errors = []
        for _, cache in self._runs():
            total = cache["blocks.0.hook_resid_pre"].float()
            for layer in range(self._model.config.n_layers):
                for part in ("attn_out", "mlp_out"):
                    total = total + cache[f"blocks.{layer}.hook_{part}"].float()
                errors.append(disagreement(total, cache[f"blocks.{layer}.hook_resid_post"]))
        return worst(errors)

    def _logits(self) -> float:
        logits, cache = self._done
        weights = self._model.weights
        end = cache[f"blocks.{self._model.config.n_layers - 1}.hook_resid_post"].float()
        found = self._normalised(end) @ weights.W_U.float() + weights.b_U.float()
        return disagreement(found, logits)

    def _scores(self) -> float:
        config, forms = self._model.config, self.attention
        lengths = [form.angles for form in forms if form.angles is not None]
        if any(angles.depend_on_length(config.n_ctx) for angles in lengths):
            raise BrokenIdentityError("rotary angles depend on the length of the sequence")
        return worst(form.error for form in forms)

    def _embedding(self) -> float:
        weights, cache = self._model.weights, self._done[1]
        found = weights.W_E[self.token_ids].float()
        if weights.W_pos is not None:
            found = found + weights.W_pos[: self.token_ids.shape[1]].float()
        expected = cache["blocks.0.hook_resid_pre"].float()
        factor = (found * expected).sum() / found.square().sum()
        error = disagreement(found, expected)
        scaled = disagreement(factor * found, expected) <= self.allowed
        if not error <= self.allowed and scaled:
            raise BrokenIdentityError(f"embeddings are multiplied by {float(factor):.4g}")
        return error

    def _blocks(self) -> float:
        bridge, cache = self._model.processed, self._done[1]
        errors = []
        for layer in range(self._model.config.n_layers):
            name = f"blocks.{layer}."
            mid = cache[f"{name}hook_resid_pre"] + cache[f"{name}hook_attn_out"]
            out = mlp_output(bridge, layer, mid.flatten(0, 1)).view_as(mid)
            errors.append(disagreement(out, cache[f"{name}hook_mlp_out"]))
        return worst(errors)

    def _mlp(self) -> float:
        cache, dtype = self._done[1], torch.promote_types(self._model.dtype, torch.float32)
        activation, errors = activation_of(self._model), []
        for layer in range(self._model.config.n_layers):
            name = f"blocks.{layer}.hook_"
            mid = cache[f"{name}resid_pre"] + cache[f"{name}attn_out"]
            own = MlpWeights.of(self._model, layer, dtype)
            found = own.output(self._normalised(mid.to(dtype)), activation)
            errors.append(disagreement(found, cache[f"{name}mlp_out"]))
        return worst(errors)

    # ---- the form of attention -------------------------------------------------------------------

    def _form(self, layer: int) -> ScoreForm:
        model, cache = self._model, self._done[1]
        name = f"blocks.{layer}."
        pattern = cache[f"{name}attn.hook_pattern"].float()
        attention = model.attention_module(layer)
        normed = self._normalised(cache[f"{name}hook_resid_pre"].float())
        weights = model.weights
        q, k = (
            torch.einsum("btd,hdk->bthk", normed, W[layer].float()) + b[layer].float()
            for W, b in ((weights.W_Q, weights.b_Q), (weights.W_K, weights.b_K))
        )
        return found_form(model.hf, attention, layer, q, k, pattern)
