"""A forward pass that keeps named activations.

Belongs here: running one batch. Does not belong here: what is computed of it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from mechinterp_assets.model.hooks import NamedHook
from mechinterp_assets.model.kept_keys import KeptKeys, Recorder, before, usable
from mechinterp_assets.model.partial_forward import last_position, run_entering


def run_and_keep(
    bridge: TransformerBridge,
    ids: Tensor,
    names: Iterable[str],
    hooks: Iterable[NamedHook] = (),
    *,
    last_logits_only: bool = False,
    past_key_values: Any = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [batch, position, d_vocab] and activations by the names that were asked for.

    `hooks` run before activations are kept, in the same pass. `last_logits_only`: one position.
    past_key_values: a cache of transformers' form that the pass reads and fills.
    (A hook's own name may be another one: several names can mean one activation.)
    """
    kept: dict[str, Tensor] = {}

    def keep_as(name: str) -> NamedHook:
        def keep(value: Tensor, hook: Any) -> None:
            kept[name] = value.clone()

        return name, keep

    all_hooks = [*hooks, *(keep_as(name) for name in names)]
    if last_logits_only:
        all_hooks.append(("unembed.hook_in", last_position))
    logits: Tensor = bridge.run_with_hooks(
        ids, fwd_hooks=all_hooks, past_key_values=past_key_values
    )
    return logits, kept


@torch.no_grad()
def run_and_keep_keys(
    bridge: TransformerBridge, ids: Tensor, names: Iterable[str]
) -> tuple[Tensor, dict[str, Tensor], KeptKeys | None]:
    """As run_and_keep for ids [row, position], with logits [row, d_vocab] at END alone.

    Also keys and values for passes over the positions behind an edit; None where the model cannot
    make use of them, or there is one position alone.
    """
    (rows, length), n_layers = ids.shape, len(bridge.blocks)
    first, second = "blocks.0.hook_resid_pre", f"blocks.{min(1, n_layers - 1)}.hook_resid_pre"
    recorder = Recorder()
    logits, kept = run_and_keep(
        bridge,
        ids,
        dict.fromkeys([*names, first, second]),
        last_logits_only=True,
        past_key_values=recorder.cache,
    )
    logits = logits[:, -1]
    keys = recorder.kept(n_layers, rows, length)

    def run(start: int) -> Tensor:
        """The first row twice, entering at the first and at the second layer."""
        both = torch.zeros(2, dtype=torch.long, device=ids.device)
        entering = {
            layer: kept[name][:1, start:]
            for layer, name in enumerate(dict.fromkeys((first, second)))
        }
        return run_entering(bridge, entering, behind=before(keys, start, both))

    if keys is not None and (length < 2 or not usable(bridge, keys, logits[0], run)):
        keys = None
    return logits, kept, keys
