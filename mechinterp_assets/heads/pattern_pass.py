"""Showing every attention pattern of a model to whoever wants to see it.

Belongs here: the pass. Does not belong here: what is done with a pattern.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from mechinterp_assets.model.hooks import Hook, NamedHook
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.partial_forward import last_position


class PatternReader(Protocol):
    """Sees every layer's attention patterns, batch by batch."""

    def update(self, layer: int, pattern: Tensor) -> None:
        """Add a batch of one layer's patterns [batch, head, destination, source]."""
        ...


@torch.no_grad()
def accumulate_patterns(
    model: LanguageModel,
    token_ids: Tensor,
    statistics: Sequence[PatternReader],
    *,
    batch_size: int,
) -> None:
    """Show every statistic the raw attention pattern of every layer, batch by batch.

    token_ids [sequence, position]. Memory: one layer's patterns of one batch at a time.
    """

    def hook_of(layer: int) -> Hook:
        def hook(pattern: Tensor, hook: Any) -> None:
            for statistic in statistics:
                statistic.update(layer, pattern)

        return hook

    hooks: list[NamedHook] = [
        (f"blocks.{layer}.attn.hook_pattern", hook_of(layer))
        for layer in range(model.config.n_layers)
    ]
    hooks.append(("unembed.hook_in", last_position))
    for ids in torch.split(token_ids, batch_size):
        model.raw.run_with_hooks(ids.to(model.device), fwd_hooks=hooks)
