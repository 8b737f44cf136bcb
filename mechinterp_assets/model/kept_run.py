"""A forward pass that keeps named activations.

Belongs here: running one batch. Does not belong here: what is computed of it.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from mechinterp_assets.model.partial_forward import NamedHook, last_position


def run_and_keep(
    bridge: TransformerBridge,
    ids: Tensor,
    names: Iterable[str],
    hooks: Iterable[NamedHook] = (),
    *,
    last_logits_only: bool = False,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [batch, position, d_vocab] and activations by the names that were asked for.

    `hooks` run before activations are kept, in the same pass. `last_logits_only`: one position.
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
    logits: Tensor = bridge.run_with_hooks(ids, fwd_hooks=all_hooks)
    return logits, kept
