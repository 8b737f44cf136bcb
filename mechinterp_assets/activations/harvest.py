"""z of every wanted layer from one forward pass.

Belongs here: running the trunk over token ids and catching the input of each attention output
projection (hook_z, heads concatenated), and the comparison of that route with TransformerLens.
Does not belong here: what is done with z (cache.py writes it, the sae package learns from it).

The route is a plain forward-pre-hook on the Hugging Face module over the trunk without logits, with
SDPA attention and raw weights: less than the cost of a full forward pass. The forward pass ends at
the last wanted layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mechinterp_assets.model.agreement import disagreement
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.model.precision import float64
from mechinterp_assets.model.shape import ModelError


@dataclass(frozen=True)
class HarvestBatch:
    """z of several layers for consecutive sequences.

    first: index in the harvested token ids of the batch's first sequence; token_ids
    [batch, position] int64; z {layer: [batch, position, n_heads * d_head]}, heads concatenated in
    order (z_cat), raw weights.
    """

    first: int
    token_ids: Tensor
    z: dict[int, Tensor]


class _LastLayerReachedError(Exception):
    """Ends a forward pass once the last wanted z is caught."""


def check_token_ids(model: LanguageModel, token_ids: Tensor) -> None:
    """Raise ModelError unless token_ids is [sequence, position], integer, and fits the model."""
    if token_ids.ndim != 2 or token_ids.is_floating_point() or token_ids.numel() == 0:
        raise ModelError(
            f"token ids must be a non-empty integer tensor [sequence, position], got "
            f"{token_ids.dtype} {tuple(token_ids.shape)}"
        )
    low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= model.config.d_vocab:
        raise ModelError(
            f"token ids span {low}..{high} but {model.source} has a vocabulary of "
            f"{model.config.d_vocab}; tokenize the corpus with this model's tokenizer"
        )
    if token_ids.shape[1] > model.config.n_ctx:
        raise ModelError(
            f"sequences have {token_ids.shape[1]} positions but {model.source} has a context of "
            f"{model.config.n_ctx}; lower the context length of the corpus"
        )


def layers_or_all(model: LanguageModel, layers: Sequence[int] | None) -> list[int]:
    """`layers` in ascending order without repeats, or all layers. Raises ModelError."""
    wanted = range(model.config.n_layers) if layers is None else layers
    chosen = sorted(set(wanted))
    if not chosen:
        raise ModelError("no layers given; name at least one layer")
    for layer in chosen:
        model.output_projection(layer)
    return chosen


@torch.no_grad()
def capture_z(
    model: LanguageModel, token_ids: Tensor, layers: Sequence[int] | None = None
) -> dict[int, Tensor]:
    """z_cat of each layer [batch, position, n_heads * d_head] from one trunk pass, raw weights.

    token_ids [batch, position], already checked with check_token_ids. Runs no layer beyond the
    last wanted one and no unembedding.
    """
    chosen = layers_or_all(model, layers)
    caught: dict[int, Tensor] = {}

    def catch(layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            caught[layer] = args[0].detach().to(model.device)
            if layer == chosen[-1]:
                raise _LastLayerReachedError

        return hook

    handles = [
        model.output_projection(layer).register_forward_pre_hook(catch(layer)) for layer in chosen
    ]
    try:
        model.trunk(input_ids=token_ids.to(model.device), use_cache=False)
    except _LastLayerReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
    if len(caught) != len(chosen):
        missing = sorted(set(chosen) - set(caught))
        raise ModelError(f"no z was seen at layers {missing} of {model.source}")
    return caught


def harvest(
    model: LanguageModel,
    token_ids: Tensor,
    layers: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
    dtype: torch.dtype | None = None,
) -> Iterator[HarvestBatch]:
    """z_cat of `layers` (default: all) for each batch of token_ids [sequence, position], in order.

    z stays on the model's device, in `dtype` (default: as computed). Raises ModelError for token
    ids that do not fit the model, before the first forward pass.
    """
    check_token_ids(model, token_ids)
    chosen = layers_or_all(model, layers)
    for first in range(0, len(token_ids), batch_size):
        ids = token_ids[first : first + batch_size].long()
        z = capture_z(model, ids, chosen)
        if dtype is not None:
            z = {layer: value.to(dtype) for layer, value in z.items()}
        yield HarvestBatch(first, ids, z)


@torch.no_grad()
def difference_from_bridge(
    model: LanguageModel,
    token_ids: Tensor,
    layers: Sequence[int] | None = None,
    *,
    view: Literal["raw", "processed"] = "raw",
) -> dict[int, float]:
    """Relative rms of harvested z - TransformerBridge hook_z of each layer.

    The two routes share no attention code (SDPA against eager), so a small value says that the
    harvest reads the activation it claims to read. Both get the same residual stream at every
    layer: otherwise a layer shows what rounding has become on the way to it, which in 16 bits hides
    real faults. Processed z lacks a constant (the value bias, folded into b_O), which is no
    difference. token_ids [batch, position].
    """
    chosen = layers_or_all(model, layers)
    bridge = getattr(model, view)
    arriving: dict[int, Tensor] = {}
    found: dict[int, Tensor] = {}

    def arrive(layer: int) -> Any:
        def hook(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            arriving[layer] = (args[0] if args else kwargs["hidden_states"]).detach()

        return hook

    handles = [
        model.block(layer).register_forward_pre_hook(arrive(layer), with_kwargs=True)
        for layer in chosen
    ]
    try:
        harvested = capture_z(model, token_ids, chosen)
    finally:
        for handle in handles:
            handle.remove()

    def send(layer: int) -> Any:
        return lambda value, hook: arriving[layer]

    def keep(layer: int) -> Any:
        def hook(value: Tensor, hook: Any) -> None:
            found[layer] = value.flatten(2)

        return hook

    hooks = [(f"blocks.{layer}.hook_resid_pre", send(layer)) for layer in chosen]
    hooks += [(f"blocks.{layer}.attn.hook_z", keep(layer)) for layer in chosen]
    bridge.run_with_hooks(token_ids.to(model.device), fwd_hooks=hooks, stop_at_layer=chosen[-1] + 1)
    if view == "processed":
        harvested, found = (
            {layer: float64(z) - float64(z).mean((0, 1)) for layer, z in each.items()}
            for each in (harvested, found)
        )
    return {layer: disagreement(found[layer], harvested[layer]) for layer in chosen}
