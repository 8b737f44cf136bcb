"""The bridge that analysis reads: a TransformerBridge whose activations are float32.

Belongs here: the precision in which hooks see a model, and in which its attention is computed. Does
not belong here: which weights it has (language_model.py).

A model in bfloat16 or float16 computes in that precision; what is computed of its activations does
not. Hooks see float32 and what they give back is rounded to what the model computes in; caches and
logits are float32. So no analysis mixes precisions, and none adds its own rounding to the model's.

Attention of a 16-bit model is computed in float32 from its rounded queries, keys and values, and z
is rounded, as fused kernels (SDPA), with which activations are harvested, do. Scores rounded to
bfloat16 are wrong by up to .125 where they are 32 to 64, which is 12% of a weight.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.position_embeddings_attention import (
    PositionEmbeddingsAttentionBridge,
)

from mechinterp_assets.model.hooks import Hook
from mechinterp_assets.model.precision import is_narrow, widened


class AnalysisBridge(TransformerBridge):  # type: ignore[misc]  # it has no types
    """A bridge of any precision, read and written in float32 (float64 models stay float64)."""

    @classmethod
    def of(
        cls, bridge: TransformerBridge, dtype: torch.dtype, *, fused: bool = True
    ) -> "AnalysisBridge":
        """`bridge` itself, whose model computes in `dtype`, as an AnalysisBridge.

        fused: the model that it stands beside attends in one kernel (SDPA).
        """
        object.__setattr__(bridge, "__class__", cls)
        assert isinstance(bridge, cls)
        bridge.cfg.dtype = dtype
        if fused and is_narrow(dtype):
            for block in bridge.blocks:
                _attend_in_float32(block.attn, dtype)
        return bridge

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        found = self.cfg.dtype
        assert isinstance(found, torch.dtype)
        return found

    @property
    def home(self) -> torch.device:
        """The device that activations and weights are handed over on."""
        return torch.device(self.cfg.device)

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """As TransformerBridge.forward; a residual stream may be float32, logits are."""
        return self._handed(super().forward(_narrowed(input, self.dtype), *args, **kwargs))

    def run_with_hooks(self, input: Any, fwd_hooks: Sequence[Any] = (), **kwargs: Any) -> Any:
        """As TransformerBridge.run_with_hooks; hooks see and give back float32."""
        if is_narrow(self.dtype) or getattr(self.cfg, "n_devices", 1) > 1:
            fwd_hooks = [(name, self._seeing(hook)) for name, hook in fwd_hooks]
        return super().run_with_hooks(input, fwd_hooks=list(fwd_hooks), **kwargs)

    def run_with_cache(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """As TransformerBridge.run_with_cache; what is cached is float32."""
        logits, cache = super().run_with_cache(input, *args, **kwargs)
        held = cache.cache_dict if hasattr(cache, "cache_dict") else cache
        for name in list(held):
            held[name] = self._handed(held[name])
        return logits, cache

    def through(self, module: nn.Module, x: Tensor) -> Tensor:
        """module(x) as the model computes it, in its precision; float32 from and to the caller."""
        own = next(module.parameters(), x).device
        out = self._handed(module(_narrowed(x, self.dtype).to(own)))
        assert isinstance(out, Tensor)
        return out

    def _handed(self, value: Any) -> Any:
        return widened(value).to(self.home) if isinstance(value, Tensor) else value

    def _seeing(self, own: Hook) -> Hook:
        """`own` for an activation of any precision on any device: it sees float32 at home, the
        model gets its own back."""

        def seen(value: Tensor, hook: Any) -> Tensor | None:
            at_hand: Tensor = self._handed(value)
            before = at_hand._version
            result = own(at_hand, hook=hook)
            if result is None and at_hand is not value and at_hand._version != before:
                result = at_hand  # written in place
            return None if result is None else result.to(value)

        return seen


# ---- private -------------------------------------------------------------------------------------


def _narrowed(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _attend_in_float32(attention: Any, dtype: torch.dtype) -> None:
    """Queries and keys as attention multiplies them, and values, become float32, and z `dtype`.

    Attention without four projections of its own (latent attention, ...) is left as it is.
    """
    if not all(hasattr(attention, name) for name in "qkvo"):
        return

    def widen(value: Tensor, hook: Any) -> Tensor:
        return value.float()

    def narrow(value: Tensor, hook: Any) -> Tensor:
        return value.to(dtype)

    # Rotation rounds its results in the model's precision: what follows it is widened. Bridges of
    # other classes have the hooks behind rotation too, and never call them.
    rotary = isinstance(attention, PositionEmbeddingsAttentionBridge)
    query = attention.hook_rot_q if rotary else attention.q.hook_out
    key = attention.hook_rot_k if rotary else attention.k.hook_out
    for point in (query, key, attention.v.hook_out):
        point.add_hook(widen, is_permanent=True)
    attention.o.hook_in.add_hook(narrow, is_permanent=True)
