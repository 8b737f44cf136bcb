"""Weights of a model's MLPs, where these are two or three matrices around one function.

Belongs here: reading them off a bridge. Does not belong here: experts, whose MLP is no such thing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.shape import ModelError

_NAMES = ("activation_function", "hidden_act", "hidden_activation", "activation")


@dataclass(frozen=True)
class MlpWeights:
    """One layer's MLP, processed weights: out = W_out hidden + b_out, hidden = f(W_in y + b_in), or
    f(W_gate y + b_gate) * (W_in y + b_in).

    W_in, W_gate [d_model, d_mlp], W_out [d_mlp, d_model]; b_in, b_gate [d_mlp], b_out [d_model];
    W_gate and b_gate are None without a gate. Absent biases are 0.
    """

    W_in: Tensor
    b_in: Tensor
    W_out: Tensor
    b_out: Tensor
    W_gate: Tensor | None
    b_gate: Tensor | None

    @classmethod
    def of(cls, model: LanguageModel, layer: int, dtype: torch.dtype) -> "MlpWeights":
        """Of one layer, in `dtype`. Raises AttributeError for an MLP of another form."""
        mlp: Any = model.processed.blocks[layer].mlp

        def read(name: str, like: Tensor | None = None) -> Tensor:
            value = getattr(mlp, name, None)
            if value is None and like is not None:
                return torch.zeros_like(like)
            if value is None:
                raise AttributeError(f"the MLP of layer {layer} has no {name}")
            found: Tensor = value.detach().to(dtype)
            return found

        W_in, W_out = read("W_in"), read("W_out")
        gate = getattr(mlp, "gate", None)
        bias = None if gate is None else getattr(gate, "bias", None)
        return cls(
            W_in=W_in,
            b_in=read("b_in", W_in[0]),
            W_out=W_out,
            b_out=read("b_out", W_out[0]),
            W_gate=None if gate is None else read("W_gate"),
            b_gate=None
            if gate is None
            else (torch.zeros_like(W_in[0]) if bias is None else bias.detach().to(dtype)),
        )

    def hidden(self, y: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """What W_out reads [..., d_mlp] when the MLP reads y [..., d_model]."""
        first = y @ self.W_in + self.b_in
        if self.W_gate is None or self.b_gate is None:
            return activation(first)
        return activation(y @ self.W_gate + self.b_gate) * first

    def output(self, y: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        """What the MLP writes [..., d_model] when it reads y [..., d_model]."""
        return self.hidden(y, activation) @ self.W_out + self.b_out


def activation_of(model: LanguageModel) -> Callable[[Tensor], Tensor]:
    """The MLPs' activation function, by the name in the model's config. Raises ModelError."""
    for name in _NAMES:
        value = getattr(model.hf.config, name, None)
        if isinstance(value, str):
            function: Callable[[Tensor], Tensor] = ACT2FN[value]
            return function
    raise ModelError(
        f"the config of {model.source} names no activation function for its MLPs "
        f"({', '.join(_NAMES)})"
    )
