"""Processing the weights of a bridge layer by layer.

Belongs here: in which pieces TransformerLens's processing sees a model. Does not belong here: what
processing is (transformer_lens.weight_processing; language_model.py says what it comes to).

TransformerLens folds and centres the weights of all layers at once: in float32, with three copies
of the model beside it. No step of it reads two layers, so each is given one layer after the other,
with the same result bit for bit, and a tensor that comes back as it was stays the model's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.weight_processing import ProcessWeights

Weights = dict[str, Tensor]


def process(bridge: TransformerBridge) -> None:
    """Fold norms and value biases into the weights of `bridge`, and centre them (compatibility
    mode)."""
    with _in_pieces():
        bridge.enable_compatibility_mode(disable_warnings=True)


# ---- private -------------------------------------------------------------------------------------


@contextmanager
def _in_pieces() -> Iterator[None]:
    whole = ProcessWeights.process_weights

    def process_weights(state_dict: Weights, cfg: Any, **how: Any) -> Weights:
        found: Weights = {}
        for piece in _pieces(state_dict, cfg.n_layers):
            # Steps that ask for an embedding or unembedding get one of no size that matters.
            missing = {name: _nothing(value) for name, value in _ends(state_dict, piece).items()}
            done = whole({**missing, **piece}, cfg, **how)
            for name in [name for name in done if name not in missing]:
                new, old = done.pop(name), piece.pop(name, None)
                found[name] = old if old is not None and torch.equal(new, old) else new
        return {name: found[name] for name in (*state_dict, *found.keys() - state_dict.keys())}

    ProcessWeights.process_weights = staticmethod(process_weights)
    try:
        yield
    finally:
        ProcessWeights.process_weights = staticmethod(whole)


def _pieces(state_dict: Weights, n_layers: int) -> Iterator[Weights]:
    """Weights of each layer, of the embedding, and all others."""
    rest = dict(state_dict)
    for prefix in (*(f"blocks.{layer}." for layer in range(n_layers)), "embed."):
        names = [name for name in rest if name.startswith(prefix)]
        yield {name: rest.pop(name) for name in names}
    yield rest


def _ends(state_dict: Weights, piece: Weights) -> Weights:
    names = ("embed.weight", "pos_embed.weight", "unembed.weight")
    return {name: state_dict[name] for name in names if name in state_dict and name not in piece}


def _nothing(weight: Tensor) -> Tensor:
    return torch.zeros((2,) * weight.ndim, device=weight.device)
