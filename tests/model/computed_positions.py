"""Counts what passes compute."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mechinterp_assets.model.language_model import LanguageModel


@contextmanager
def positions_computed(model: LanguageModel) -> Iterator[list[int]]:
    """Positions of all rows that each layer's MLP computes within the block [layer]."""
    counts = [0] * model.config.n_layers
    with ExitStack() as stack:
        for layer, block in enumerate(model.processed.blocks):

            def count(module: object, args: Any, layer: int = layer) -> None:
                counts[layer] += args[0].shape[:-1].numel()

            stack.callback(block.mlp.register_forward_pre_hook(count).remove)
        yield counts
