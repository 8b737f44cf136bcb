"""Weights of one view of a model, by the field's names, in float32.

Belongs here: reading a bridge's weights. Does not belong here: processing (language_model.py).

What is computed of weights is computed in float32 at least, whatever the model computes in: an SVD,
a sum over d_model or a product of four matrices in bfloat16 is no result. A layer's weights are
read when they are asked for and held by nobody: what is at hand is all that is copied.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mechinterp_assets.model.bridge import AnalysisBridge
from mechinterp_assets.model.precision import widened
from mechinterp_assets.model.shape import ModelError, ModelShape


class LayerWeight:
    """One weight of all layers [layer, ...]: `[layer]`, `[layer, head]` or `stacked()`."""

    def __init__(self, read: Callable[[int], Tensor], n_layers: int) -> None:
        self._read, self._n_layers = read, n_layers

    def __getitem__(self, at: int | tuple[int | Tensor | slice, ...]) -> Tensor:
        layer, *rest = at if isinstance(at, tuple) else (at,)
        if isinstance(layer, slice):
            raise TypeError("weights are read layer by layer: use [layer], or stacked()")
        value = self._read(range(self._n_layers)[int(layer)])
        return value[tuple(rest)] if rest else value

    def __len__(self) -> int:
        return self._n_layers

    def __iter__(self) -> Iterator[Tensor]:
        return (self[layer] for layer in range(self._n_layers))

    @property
    def shape(self) -> torch.Size:
        """[layer, ...]."""
        return torch.Size((self._n_layers, *self[0].shape))

    def stacked(self) -> Tensor:
        """All layers in one tensor: as much memory again as they have in the model, or twice."""
        return torch.stack(list(self))


class Weights:
    """Attention, embedding and unembedding weights of one view (`raw` or `processed`), float32.

    W_Q, W_K, W_V [layer, head, d_model, d_head]; W_O [layer, head, d_head, d_model];
    b_Q, b_K, b_V [layer, head, d_head]; b_O [layer, d_model]; W_E [d_vocab, d_model];
    W_pos [n_ctx, d_model] or None (rotary); W_U [d_model, d_vocab]; b_U [d_vocab].
    Grouped-query models: keys and values are repeated over their query group. Absent biases are 0.
    W_E and W_U of a 16-bit model are converted at each look: look once, outside of loops.
    """

    def __init__(self, bridge: AnalysisBridge, shape: ModelShape) -> None:
        self._bridge, self._shape = bridge, shape
        heads, d, dh = shape.n_heads, shape.d_model, shape.d_head
        self.W_Q = self._of_layers("W_Q", (heads, d, dh))
        self.W_K = self._of_layers("W_K", (heads, d, dh))
        self.W_V = self._of_layers("W_V", (heads, d, dh))
        self.W_O = self._of_layers("W_O", (heads, dh, d))
        self.b_Q = self._of_layers("b_Q", (heads, dh))
        self.b_K = self._of_layers("b_K", (heads, dh))
        self.b_V = self._of_layers("b_V", (heads, dh))
        self.b_O = self._of_layers("b_O", (d,))
        for weight in (self.W_Q, self.W_K, self.W_V, self.W_O):  # a wrong shape is said at once
            _ = weight[0]

    @property
    def W_E(self) -> Tensor:
        """Embedding [d_vocab, d_model]."""
        return self._whole("W_E", (self._shape.d_vocab, self._shape.d_model))

    @property
    def W_pos(self) -> Tensor | None:
        """Embedding of positions [n_ctx, d_model], or None where positions are no table."""
        if self._shape.positional != "absolute":
            return None
        return self._whole("W_pos", (self._shape.n_ctx, self._shape.d_model))

    @property
    def W_U(self) -> Tensor:
        """Unembedding [d_model, d_vocab]."""
        return self._whole("W_U", (self._shape.d_model, self._shape.d_vocab))

    @property
    def b_U(self) -> Tensor:
        """Bias of the unembedding [d_vocab]."""
        return self._whole("b_U", (self._shape.d_vocab,))

    def _of_layers(self, name: str, size: tuple[int, ...]) -> LayerWeight:
        def read(layer: int) -> Tensor:
            return self._checked(getattr(self._bridge.blocks[layer].attn, name, None), name, size)

        return LayerWeight(read, self._shape.n_layers)

    def _whole(self, name: str, size: tuple[int, ...]) -> Tensor:
        return self._checked(getattr(self._bridge, name, None), name, size)

    def _checked(self, value: Tensor | None, name: str, size: tuple[int, ...]) -> Tensor:
        if value is None:
            return torch.zeros(size, device=self._bridge.home)
        value = value.detach()
        if name[-1] in "KV" and len(value) != size[0] and size[0] % len(value) == 0:
            value = value.repeat_interleave(size[0] // len(value), dim=0)
        if tuple(value.shape) != size:
            raise ModelError(f"weight {name} has shape {tuple(value.shape)}, expected {size}")
        return widened(value).to(self._bridge.home)
