"""At which activation of a model an SAE reconstructs best.

Belongs here: an SAE against z, the attention output and the residual stream of every layer, for a
folder that names the wrong one. Does not belong here: the ways to read an SAE at one of them
(readings.py), what follows for a study (external.py).
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mechinterp_assets.activations.cache import valid_positions
from mechinterp_assets.activations.harvest import check_token_ids
from mechinterp_assets.model.language_model import LanguageModel
from mechinterp_assets.sae.base import SparseAutoencoder
from mechinterp_assets.sae.evaluation import evaluate_reconstruction


def z_hook(layer: int) -> str:
    """TransformerLens's name of z."""
    return f"blocks.{layer}.attn.hook_z"


def out_hook(layer: int) -> str:
    """TransformerLens's name of the attention output."""
    return f"blocks.{layer}.hook_attn_out"


def residual_hook(layer: int) -> str:
    """TransformerLens's name of the residual stream before a block."""
    return f"blocks.{layer}.hook_resid_pre"


@torch.no_grad()
def activation_rows(model: LanguageModel, token_ids: Tensor, hook: str, batch: int = 16) -> Tensor:
    """Activations of one hook at valid positions [n, width] float32, on the CPU, raw weights.

    Raises KeyError for a hook that is none of z_hook, out_hook and residual_hook of a layer.
    """
    check_token_ids(model, token_ids)
    found: list[Tensor] = []
    watched = _watched(model)[hook]
    for start in range(0, len(token_ids), batch):
        ids = token_ids[start : start + batch].long()
        seen: list[Tensor] = []
        with watched(seen.append):
            model.trunk(input_ids=ids.to(model.device), use_cache=False)
        valid = valid_positions(ids, model.left_out_ids).to(seen[0].device)
        found.append(seen[0][valid].float().cpu())
    return torch.cat(found)


@torch.no_grad()
def fvu_by_hook(
    model: LanguageModel, sae: SparseAutoencoder, token_ids: Tensor
) -> dict[str, float]:
    """Fraction of variance unexplained at every hook of the SAE's width, the smallest first.

    token_ids [sequence, position], few: they are one batch.
    """
    check_token_ids(model, token_ids)
    valid = valid_positions(token_ids, model.left_out_ids)
    found: dict[str, float] = {}

    def measure(hook: str, x: Tensor) -> None:
        if x.shape[-1] == sae.d_in:
            fvu = evaluate_reconstruction(sae, x[valid.to(x.device)].float().cpu())["fvu"]
            if isinstance(fvu, float):
                found[hook] = fvu

    with ExitStack() as stack:
        for hook, watched in _watched(model).items():
            stack.enter_context(watched(partial(measure, hook)))
        model.trunk(input_ids=token_ids.long().to(model.device), use_cache=False)
    return dict(sorted(found.items(), key=lambda item: item[1]))


# ---- private -------------------------------------------------------------------------------------

See = Callable[[Tensor], object]
Watched = Callable[[See], Any]


def _watched(model: LanguageModel) -> Mapping[str, Watched]:
    """For each hook what registers a function that sees its activation: a context manager."""
    found: dict[str, Watched] = {}
    for layer in range(model.config.n_layers):
        projection = model.output_projection(layer)
        found[z_hook(layer)] = partial(_input_of, projection)
        found[out_hook(layer)] = partial(_output_of, projection)
        found[residual_hook(layer)] = partial(_input_of, model.block(layer))
    return found


def _input_of(module: nn.Module, see: See) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        see(args[0] if args else kwargs["hidden_states"])

    return module.register_forward_pre_hook(hook, with_kwargs=True)


def _output_of(module: nn.Module, see: See) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        see(output)

    return module.register_forward_hook(hook)
