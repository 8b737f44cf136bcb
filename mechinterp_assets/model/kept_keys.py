"""Keys and values of unedited runs, so that positions before an edit need not be computed again.

Belongs here: recording keys and values as attention reads them, handing them to later passes, and
the check that a model's bridge takes them. Does not belong here: starting at a later layer
(partial_forward.py), what is edited.

Attention is causal: an edit at position p changes nothing before p, at any layer. What later
positions need of the earlier ones are their keys and values, which the unedited run has. A pass
over the positions from p on reads them from a cache of transformers' form, as generation does; it
gives each model its own positions, rotations and masks. Not every bridge passes caches on, so each
is asked once per length, on its own prompts, whether passes over a part of the positions give the
logits of the whole.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, cat
from transformer_lens.model_bridge import TransformerBridge
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

logger = logging.getLogger(__name__)

# Largest difference of logits, relative to the largest, of passes that compute the same.
TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05


@dataclass(frozen=True)
class KeptKeys:
    """Keys and values of every layer, rotated and normed as attention reads them.

    keys, values [layer] of [row, group, position, d_head].
    """

    keys: list[Tensor]
    values: list[Tensor]

    @property
    def length(self) -> int:
        """Number of positions."""
        return self.keys[0].shape[2]


def before(kept: KeptKeys | None, position: int, rows: Tensor) -> Any:
    """A cache of the positions before `position` for a pass whose rows are `rows` [row].

    None, which is no cache, where there are none.
    """
    if kept is None or position == 0:
        return None
    pairs = zip(kept.keys, kept.values, strict=True)
    return Cache(layers=[_KeptLayer(k, v, rows, position) for k, v in pairs])


class Recorder:
    """Records keys and values in a whole pass: pass `cache` as past_key_values."""

    def __init__(self) -> None:
        # Without a config all layers keep all positions, sliding windows too.
        self.cache: Any = DynamicCache()

    def kept(self, n_layers: int, rows: int, length: int) -> KeptKeys | None:
        """What was recorded; None for a model that does not hand over every layer's keys."""
        layers = self.cache.layers
        if len(layers) != n_layers or any(
            getattr(layer, "keys", None) is None or layer.keys.shape[::2] != (rows, length)
            for layer in layers
        ):
            return None
        return KeptKeys([layer.keys for layer in layers], [layer.values for layer in layers])


_USABLE: WeakKeyDictionary[TransformerBridge, dict[int, bool]] = WeakKeyDictionary()


def usable(
    bridge: TransformerBridge, kept: KeptKeys, logits: Tensor, run: Callable[[int], Tensor]
) -> bool:
    """Whether passes that read `kept` give the logits of the pass that recorded them.

    logits [d_vocab] at END of the first row; run: position -> the same of passes over the positions
    from it on [row, d_vocab]. Asked once for a bridge and a length.
    """
    known = _USABLE.setdefault(bridge, {})
    if kept.length not in known:
        starts = sorted({kept.length - 1, max(1, kept.length // 2)})
        known[kept.length] = all(_agrees(bridge, logits, run, start) for start in starts)
    return known[kept.length]


def _agrees(
    bridge: TransformerBridge, logits: Tensor, run: Callable[[int], Tensor], start: int
) -> bool:
    largest = logits.abs().max()
    try:
        gap = float((run(start) - logits).abs().max() / largest)
        reason = f"logits differ by {gap:.2g} of the largest"
    except RuntimeError as error:  # shapes that one row's masks or positions do not fit
        gap, reason = float("nan"), str(error)
    agrees = gap <= (TOLERANCE if logits.dtype.itemsize >= 4 else HALF_TOLERANCE)
    if not agrees:
        logger.warning(
            "%s does not take kept keys and values (%s); positions before an edit are computed "
            "again for each",
            type(bridge.original_model).__name__,
            reason,
        )
    return agrees


class _KeptLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped
    """A layer's kept positions, in front of the keys and values of one pass, which are not kept."""

    def __init__(self, keys: Tensor, values: Tensor, rows: Tensor, length: int) -> None:
        super().__init__()
        self._kept, self._rows, self._length = (keys, values), rows, length

    def get_seq_length(self) -> int:
        return self._length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self._length + query_length, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        rows = self._rows[: len(key_states)]  # those that have entered
        keys, values = (
            cat([kept[rows, :, : self._length], own], dim=2)
            for kept, own in zip(self._kept, (key_states, value_states), strict=True)
        )
        return keys, values
