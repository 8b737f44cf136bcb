"""Forward passes that start at a later layer and position, and cost only what lies behind them.

Belongs here: running a bridge from a residual stream on. Does not belong here: keeping keys and
values (kept_keys.py), what hooks change and what is read off the logits.

TransformerLens's own `start_at_layer` (4.3) swaps the residual stream in at its block but still
computes all blocks before it. Here these blocks are passed through, which gives the same logits bit
for bit: attention masks and rotary angles are made by the model from the sequence length alone.

Rows may enter one pass at different layers, each at its own: runs of many edits of few prompts each
would spend their time on reading weights. Such a pass begins as one of a single row, whose masks
and angles serve all rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from mechinterp_assets.model.hooks import Hook, NamedHook


def run_from(
    bridge: TransformerBridge,
    residual: Tensor,
    layer: int,
    hooks: Sequence[NamedHook] = (),
    *,
    behind: Any = None,
) -> Tensor:
    """Logits at the last position [row, d_vocab] when `residual` enters block `layer`.

    residual [row, position, d_model]; sequences have no padding. They start at position 0, or
    behind the positions whose keys and values `behind` holds (kept_keys.before); hooks see the
    positions of `residual` alone. Hooks on blocks before `layer` never fire. Only the last position
    is unembedded.
    """
    hooks = [*hooks, ("unembed.hook_in", last_position)]
    return all_logits_from(bridge, residual, layer, hooks, behind=behind)[:, -1]


def all_logits_from(
    bridge: TransformerBridge,
    residual: Tensor,
    layer: int,
    hooks: Sequence[NamedHook] = (),
    *,
    behind: Any = None,
) -> Tensor:
    """As run_from, the logits of every position of `residual` [row, position, d_vocab]."""
    with _passed_through(bridge, layer):
        logits: Tensor = bridge.run_with_hooks(
            residual, start_at_layer=layer, fwd_hooks=list(hooks), past_key_values=behind
        )
    return logits


def mlp_output(bridge: TransformerBridge, layer: int, stream: Tensor) -> Tensor:
    """What the MLP of block `layer` writes when it reads `stream`, both [place, d_model].

    The block itself is run, on sequences of one token and with attention that writes nothing, so
    that norms and modules are where the architecture has them. In a block whose MLP runs beside
    attention, the MLP reads what attention reads.
    """
    kept: list[Tensor] = []

    def enter(value: Tensor, hook: Any) -> Tensor:
        return stream[:, None]

    def silence(value: Tensor, hook: Any) -> Tensor:
        return torch.zeros_like(value)

    def keep(value: Tensor, hook: Any) -> None:
        kept.append(value.clone())

    hooks = [
        (f"blocks.{layer}.hook_resid_pre", enter),
        (f"blocks.{layer}.hook_attn_out", silence),
        (f"blocks.{layer}.hook_mlp_out", keep),
    ]
    with _passed_through(bridge, layer):
        ids = torch.zeros(len(stream), 1, dtype=torch.long, device=stream.device)
        bridge.run_with_hooks(ids, fwd_hooks=hooks, stop_at_layer=layer + 1)
    return kept[0][:, 0]


def last_position(residual: Tensor, hook: Any) -> Tensor:
    """Hook for `unembed.hook_in`: keeps END alone, so that nothing else is unembedded."""
    return residual[:, -1:]


def run_entering(
    bridge: TransformerBridge,
    entering: Mapping[int, Tensor],
    hooks: Sequence[NamedHook] = (),
    *,
    behind: Any = None,
) -> Tensor:
    """Logits at the last position [row, d_vocab] when rows enter at several layers.

    entering: layer -> residual streams [row, position, d_model] that enter its block. Rows are
    those of the first layer, then of the next; hooks of a layer see the rows that have entered.
    """
    first, *later = sorted(entering)
    if not later:
        return run_from(bridge, entering[first], first, hooks, behind=behind)
    entries = [
        (f"blocks.{layer}.hook_resid_pre", _entry(entering[layer], layer == first))
        for layer in (first, *later)
    ]
    return run_from(bridge, entering[first][:1], first, [*entries, *hooks], behind=behind)


def _entry(rows: Tensor, is_first: bool) -> Hook:
    def enter(residual: Tensor, hook: Any) -> Tensor:
        return rows.clone() if is_first else torch.cat([residual, rows])

    return enter


@contextmanager
def _passed_through(bridge: TransformerBridge, layer: int) -> Iterator[None]:
    """Within the block, blocks before `layer` return what they are given."""
    blocks = list(bridge.blocks)[:layer]

    def give_back(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    try:
        for block in blocks:
            # Attributes set on a bridge land on the module it wraps; its own dictionary does not.
            block.__dict__["forward"] = give_back
        yield
    finally:
        for block in blocks:
            block.__dict__.pop("forward", None)
