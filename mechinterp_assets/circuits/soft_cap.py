"""Caps of scores and logits: y = cap tanh(x / cap), nothing where a model has none.

Belongs here: reading a model's caps, values behind one and gradients in front of it. Does not
belong here: what is capped.
"""

from torch import Tensor

from mechinterp_assets.model.language_model import LanguageModel


def soft_cap(model: LanguageModel, name: str) -> float | None:
    """The cap that the bridge's configuration calls `name`, or None."""
    cap = getattr(model.adapter.cfg, name, None)
    return float(cap) if cap and cap > 0 else None


def capped(x: Tensor, cap: float | None) -> Tensor:
    """y of x."""
    return x if cap is None else cap * (x / cap).tanh()


def gradient_before(gradient: Tensor, x: Tensor, cap: float | None) -> Tensor:
    """A gradient by y as one by x."""
    return gradient if cap is None else gradient * (1 - (x / cap).tanh().square())
